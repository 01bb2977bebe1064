package web

import (
	"fmt"
	"maps"
	"net/http"
	"strconv"
	"time"

	"github.com/relayguard/relayguard/examples/server/lives"
)

// KeepingLives returns the page of a site that keeps lives: it leads to them,
// and does not say that nothing of a life remains.
func (p *Page) KeepingLives() *Page {
	kept := *p
	kept.Lives = true
	kept.files = maps.Clone(p.files)
	kept.identify()
	return &kept
}

// livesView is what the templates of lives show.
type livesView struct {
	view
	Lives []lifeView
	Life  lifeView
}

// lifeView is a life in words.
type lifeView struct {
	lives.Life
	words words
}

// ListHandler shows a list of lives. [Page.Policy] is its policy.
func (p *Page) ListHandler(list []lives.Life) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v := livesView{view: p.view(r, "")}
		for _, life := range list {
			v.Lives = append(v.Lives, lifeView{life, p.words})
		}
		show(w, r, "lives.html", v)
	})
}

// LifeHandler shows a life again. [Page.Policy] is its policy. The page
// requests its frames at its own address with ".jsonl" after it.
func (p *Page) LifeHandler(life lives.Life) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v := livesView{view: p.view(r, ""), Life: lifeView{life, p.words}}
		v.Root = "../"
		show(w, r, "life.html", v)
	})
}

// Name returns "Life 3", or "A life" if the number is not known.
func (l lifeView) Name() string {
	if l.Number == nil {
		return l.words.Say("aLife")
	}
	return l.words.Fill("life", "n", strconv.FormatInt(*l.Number, 10))
}

// EndedAt returns when it ended, for those without scripts.
func (l lifeView) EndedAt() string { return l.Ended.UTC().Format("2006-01-02 15:04 UTC") }

// Stamp returns when it ended, for scripts.
func (l lifeView) Stamp() string { return l.Ended.UTC().Format(time.RFC3339) }

// Lasted returns how long it lasted, as hours, minutes and seconds.
func (l lifeView) Lasted() string {
	s := int64(max(l.Ended.Sub(l.Began), 0).Seconds())
	if s >= 3600 {
		return fmt.Sprintf("%d:%02d:%02d", s/3600, s/60%60, s%60)
	}
	return fmt.Sprintf("%d:%02d", s/60, s%60)
}

// Full returns how full the memory was at the end, or nothing.
func (l lifeView) Full() string {
	if l.MemoryPercent == nil {
		return ""
	}
	return l.words.Fill("percent", "n", strconv.FormatFloat(*l.MemoryPercent, 'f', 0, 64))
}

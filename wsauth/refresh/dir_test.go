package refresh_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/relayguard/relayguard/wsauth"
	"github.com/relayguard/relayguard/wsauth/refresh"
)

func newDir(t testing.TB, dir string, most int) refresh.Store {
	t.Helper()
	s, err := refresh.NewDirStore(dir, most)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func families(t testing.TB, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.family"))
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// After a restart, a device can use its token, and the token whose answer was
// lost. A stolen token is still recognized.
func TestDirStoreRestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "refresh")
	restart := func() (*refresh.Issuer, *trail) {
		return newIssuer(t, func(c *refresh.Config) { c.Store = newDir(t, dir, 0) })
	}
	i, _ := restart()
	first, err := i.IssueAt(t.Context(), refresh.Grant{Subject: "pi-1", Role: "admin", Scope: []string{}}, now)
	if err != nil {
		t.Fatal(err)
	}
	before, err := i.FamiliesAt(t.Context(), now)
	if err != nil {
		t.Fatal(err)
	}
	second, err := i.RefreshAt(t.Context(), first.RefreshToken, wsauth.Peer{}, now)
	if err != nil {
		t.Fatal(err)
	}

	i, r := restart()
	again, err := i.RefreshAt(t.Context(), first.RefreshToken, wsauth.Peer{}, now.Add(time.Second))
	if err != nil || again.Token != second.Token || again.RefreshToken != second.RefreshToken {
		t.Errorf("not the lost answer: %v", err)
	}
	after, err := i.FamiliesAt(t.Context(), now)
	if err != nil || len(after) != 1 || after[0].ID != before[0].ID || !after[0].EndsAt.Equal(before[0].EndsAt) || after[0].Generation != 2 {
		t.Errorf("%+v, %v", after, err)
	}
	id, err := newHS256(t).Verify(t.Context(), []byte(again.Token), now)
	if err != nil || id.Role != "admin" || len(id.Permissions) != 0 {
		t.Errorf("an empty scope became another: %+v, %v", id, err)
	}
	_, err = i.RefreshAt(t.Context(), first.RefreshToken, wsauth.Peer{}, now.Add(time.Hour))
	if got := reasonOf(t, err); got != wsauth.ReasonReused || len(r.revoked) != 1 {
		t.Error(got)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Error("something is left of a revoked family:", left, err)
	}
}

// The server accepts a token that another process has issued.
func TestDirStoreShared(t *testing.T) {
	dir := t.TempDir()
	server, _ := newIssuer(t, func(c *refresh.Config) { c.Store = newDir(t, dir, 0) })
	command, _ := newIssuer(t, func(c *refresh.Config) { c.Store = newDir(t, dir, 0) })
	p := issue(t, command, "pi-1")
	if _, err := server.RefreshAt(t.Context(), p.RefreshToken, wsauth.Peer{}, now); err != nil {
		t.Error(err)
	}
}

func TestDirStoreParallel(t *testing.T) {
	i, r := newIssuer(t, func(c *refresh.Config) { c.Store = newDir(t, t.TempDir(), 0) })
	p := issue(t, i, "pi-1")
	together(8, func(int) {
		if _, err := i.RefreshAt(t.Context(), p.RefreshToken, wsauth.Peer{}, now); err != nil {
			t.Error(err)
		}
	})
	if got := strings.Count(r.kinds(), "pair_rotated"); got != 1 {
		t.Errorf("%d rotations", got)
	}
}

func TestDirStoreBound(t *testing.T) {
	if _, err := refresh.NewDirStore(t.TempDir(), -1); !errors.Is(err, wsauth.ConfigNegative) {
		t.Error("a negative bound:", err)
	}
	dir := t.TempDir()
	i, _ := newIssuer(t, func(c *refresh.Config) { c.Store = newDir(t, dir, 2) })
	issue(t, i, "pi-1")
	issue(t, i, "pi-1")
	if _, err := i.IssueAt(t.Context(), refresh.Grant{Subject: "pi-1"}, now); !errors.Is(err, refresh.ErrTooManyFamilies) {
		t.Error(err)
	}
	if _, err := i.IssueAt(t.Context(), refresh.Grant{Subject: "pi-1"}, now.Add(7*24*time.Hour)); err != nil {
		t.Error("those that are idle leave room:", err)
	}
	if got := families(t, dir); len(got) != 1 {
		t.Error(got)
	}
}

// Only the owner may read the files, and they contain no token.
func TestDirStoreFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "refresh")
	i, _ := newIssuer(t, func(c *refresh.Config) { c.Store = newDir(t, dir, 0) })
	p := issue(t, i, "pi-1")
	for path, want := range map[string]os.FileMode{dir: 0o700, families(t, dir)[0]: 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Error(info.Mode(), err)
		}
	}
	text, err := os.ReadFile(families(t, dir)[0])
	if err != nil || strings.Contains(string(text), p.RefreshToken[5:]) || strings.Contains(string(text), p.Token) {
		t.Error("a token is on the disk", err)
	}
}

// A damaged file accepts no token, and the refresh token works again after a
// repair.
func TestDirStoreDamage(t *testing.T) {
	dir := t.TempDir()
	i, _ := newIssuer(t, func(c *refresh.Config) { c.Store = newDir(t, dir, 0) })
	p, q := issue(t, i, "pi-1"), issue(t, i, "pi-2")
	mine := filepath.Join(dir, strings.TrimSuffix(p.TokenID, ".1")+".family")
	theirs := filepath.Join(dir, strings.TrimSuffix(q.TokenID, ".1")+".family")
	whole, err := os.ReadFile(mine)
	if err != nil {
		t.Fatal(err)
	}
	other, err := os.ReadFile(theirs)
	if err != nil {
		t.Fatal(err)
	}
	for why, text := range map[string][]byte{"empty": nil, "cut off": whole[:len(whole)-1], "not JSON": []byte("x"), "another family's": other} {
		if err := os.WriteFile(mine, text, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := i.RefreshAt(t.Context(), p.RefreshToken, wsauth.Peer{}, now)
		if _, ok := errors.AsType[*wsauth.UnavailableError](err); !ok {
			t.Errorf("%s: %v", why, err)
		}
		issue(t, i, "pi-1")
		if n, err := i.RevokeSubjectAt(t.Context(), "pi-1", now); n != 1 || err == nil {
			t.Errorf("%s: revoked %d of 2, one of which cannot be read: %v", why, n, err)
		}
	}
	if err := os.WriteFile(mine, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	// Files of a crash, and foreign files.
	for _, name := range []string{filepath.Base(mine) + ".new", "notes.txt", "x.family"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := i.RefreshAt(t.Context(), p.RefreshToken, wsauth.Peer{}, now); err != nil {
		t.Error(err)
	}
	if all, err := i.FamiliesAt(t.Context(), now); err != nil || len(all) != 2 {
		t.Error(all, err)
	}
}

// The ID in a request of the operator never becomes a path, even if a file
// there names that ID.
func TestDirStoreIDs(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "refresh")
	i, _ := newIssuer(t, func(c *refresh.Config) { c.Store = newDir(t, dir, 0) })
	for _, id := range []string{"", "aa", "..", "../aa", "../" + strings.Repeat("a", 29), "../" + strings.Repeat("a", 32), strings.Repeat("A", 32)} {
		file := filepath.Join(dir, id+".family")
		if err := os.WriteFile(file, []byte(`{"ID":"`+id+`"}`), 0o600); err != nil {
			t.Fatal(err)
		}
		if ok, err := i.RevokeFamilyAt(t.Context(), id, now); ok || err != nil {
			t.Errorf("%q: %t %v", id, ok, err)
		}
		if _, err := os.Stat(file); err != nil {
			t.Error(err)
		}
	}
	if all, err := i.FamiliesAt(t.Context(), now); len(all) != 0 || err != nil {
		t.Error(all, err)
	}
}

// A family from before subjects were called so is still one of its device.
func TestDirStoreOldName(t *testing.T) {
	dir := t.TempDir()
	i, _ := newIssuer(t, func(c *refresh.Config) { c.Store = newDir(t, dir, 0) })
	p := issue(t, i, "pi-1")
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	text, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	old := bytes.Replace(text, []byte(`"Subject":`), []byte(`"Device":`), 1)
	if bytes.Equal(old, text) {
		t.Fatalf("%s", text)
	}
	if err := os.WriteFile(files[0], old, 0o600); err != nil {
		t.Fatal(err)
	}
	next, err := i.RefreshAt(t.Context(), p.RefreshToken, wsauth.Peer{}, now)
	if err != nil {
		t.Fatal(err)
	}
	id, err := newHS256(t).Verify(t.Context(), []byte(next.Token), now)
	if err != nil || id.Subject != "pi-1" {
		t.Error(id.Subject, err)
	}
}

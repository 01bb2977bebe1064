package redislog

import (
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"github.com/relayguard/relayguard/history"
)

// view is what a look has seen.
type view struct {
	saved history.Saved // without entries, unless they were asked for
	head  history.Head
	end   streamID // of the last entry or mark
	key   *dataKey
	now   time.Time // the engine's
	due   bool      // there is no log yet, or the line has ended
}

// The numbers of the fields that the look script returns.
const (
	fieldID = iota
	fieldLine
	fieldEpoch
	fieldLast
	fieldRun
	fieldPrev
	fieldSkips
	fieldNote
	fieldNoteEpoch
	fieldFinished
	fieldKey
	fieldKeyID
	fields
)

// view decodes the result of the look script: the server's master_replid and
// role, its time in two numbers, the fields of the head, and the stream.
func (o *origin) view(reply []rueidis.RedisMessage) (*view, error) {
	if len(reply) != 7 {
		return nil, errReply
	}
	var text [4]string
	for i := range text {
		var err error
		if text[i], err = reply[i].ToString(); err != nil {
			return nil, errReply
		}
	}
	head, err := reply[4].AsStrSlice()
	if err != nil || len(head) != fields {
		return nil, errReply
	}
	switch {
	case text[0] == "":
		return nil, errNoInfo
	case text[1] != "master":
		return nil, errReplica
	}
	var p parser
	v := &view{now: time.Unix(int64(p.number(text[2])), int64(p.number(text[3]))*1000)}
	if v.due = head[fieldID] == "" || head[fieldRun] != text[0]; v.due {
		return v, p.err
	}
	s := &v.saved
	s.ID, s.Line, s.Epoch, s.Last = p.number(head[fieldID]), p.number(head[fieldLine]), p.number(head[fieldEpoch]), p.number(head[fieldLast])
	s.NoteEpoch, s.Finished = p.number(head[fieldNoteEpoch]), head[fieldFinished] != ""
	for _, n := range p.lists(head[fieldPrev], 3) {
		s.Earlier = append(s.Earlier, history.Head{Line: n[0], Epoch: n[1], Last: n[2]})
	}
	for _, n := range p.lists(head[fieldSkips], 2) {
		s.Skips = append(s.Skips, history.Skip{After: n[0], Count: n[1]})
	}
	if p.err != nil {
		return nil, p.err
	}
	v.head = history.Head{Line: s.Line, Epoch: s.Epoch, Last: s.Last}
	v.end = streamID{s.Epoch, s.Last * 1024}
	if v.key, err = o.seal.open(head[fieldKeyID], head[fieldKey]); err != nil {
		return nil, err
	}
	if note, ok := strings.CutPrefix(head[fieldNote], "n"); ok {
		if s.Note, err = o.seal.unseal(v.key, "note", note); err != nil {
			return nil, err
		}
	}
	if err := o.pinsOf(v, &reply[6]); err != nil {
		return nil, err
	}
	return v, o.entries(v, &reply[5])
}

// pinsOf decodes the pins: for each key the number of an entry, a space, and
// the value.
func (o *origin) pinsOf(v *view, reply *rueidis.RedisMessage) error {
	list, err := reply.AsStrSlice()
	if err != nil || len(list)%2 != 0 {
		return errReply
	}
	for ; len(list) > 0; list = list[2:] {
		seq, value, _ := strings.Cut(list[1], " ")
		sealed, ok := strings.CutPrefix(value, "v")
		p := history.Pin{Key: list[0]}
		if p.Seq, err = strconv.ParseUint(seq, 10, 64); err != nil || !ok {
			return errReply
		}
		if p.Data, err = o.seal.unseal(v.key, "pin "+p.Key, sealed); err != nil {
			return err
		}
		v.saved.Pins = append(v.saved.Pins, p)
	}
	return nil
}

// entries decodes the stream.
func (o *origin) entries(v *view, reply *rueidis.RedisMessage) error {
	list, err := reply.AsXRangeSlices()
	if err != nil {
		return errReply
	}
	for _, x := range list {
		id, err := parseID(x.ID)
		if err != nil {
			return err
		}
		if v.end.before(id) {
			v.end = id
		}
		if id.n%1024 != 0 {
			continue // a mark
		}
		e, err := o.entry(v.key, x)
		if err != nil {
			return err
		}
		v.saved.Entries = append(v.saved.Entries, e)
	}
	return nil
}

// entry decodes one entry of the stream: its time in milliseconds, its length,
// and its data.
func (o *origin) entry(key *dataKey, x rueidis.XRangeSlice) (history.Entry, error) {
	f := x.FieldValues
	id, err := parseID(x.ID)
	if err != nil || len(f) != 3 || f[0].Field != "t" || f[1].Field != "n" || f[2].Field != "d" {
		return history.Entry{}, errReply
	}
	at, err := strconv.ParseInt(f[0].Value, 10, 64)
	if err != nil {
		return history.Entry{}, errReply
	}
	data, err := o.seal.unseal(key, "entry", f[2].Value)
	if err != nil {
		return history.Entry{}, err
	}
	if f[1].Value != strconv.Itoa(len(data)) {
		return history.Entry{}, errReply
	}
	return history.Entry{Seq: id.n / 1024, At: time.UnixMilli(at), Data: data}, nil
}

// parser parses numbers, and remembers the first error.
type parser struct{ err error }

func (p *parser) number(text string) uint64 {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil && p.err == nil {
		p.err = errReply
	}
	return n
}

// lists parses a list of n numbers each, such as "1,2;3,4;".
func (p *parser) lists(text string, n int) (lists [][]uint64) {
	for item := range strings.SplitSeq(strings.TrimSuffix(text, ";"), ";") {
		if text == "" {
			break
		}
		var list []uint64
		for number := range strings.SplitSeq(item, ",") {
			list = append(list, p.number(number))
		}
		if len(list) != n {
			p.err = errReply
			break
		}
		lists = append(lists, list)
	}
	return lists
}

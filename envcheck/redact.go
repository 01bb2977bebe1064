package envcheck

import (
	"context"
	"encoding"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

// leastRedacted is the length in bytes from which a secret is blanked. Shorter
// texts occur everywhere in a log by chance, and the blanks would show where.
const leastRedacted = 4

// Redactor blanks secrets in texts and logs: it replaces them by "[redacted]".
// It finds a secret wherever it comes from, such as the error of a library that
// quotes a URL with its password. A [Secret] is the first defence, which does
// not depend on the form in which a value is printed.
//
// The zero value has no secrets and is ready to use. All methods can be called
// at the same time. A Redactor must not be copied.
type Redactor struct {
	mu      sync.Mutex
	secrets []string
	blanks  atomic.Pointer[blanks]
}

// Add registers secrets. A secret of less than 4 bytes is ignored. Of a secret
// of several lines, such as a PEM file, each line of 16 or more bytes is
// registered too; of a URL, its password.
func (r *Redactor) Add(secrets ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, secret := range secrets {
		r.secrets = append(r.secrets, secret)
		if strings.Contains(secret, "\n") {
			for line := range strings.Lines(secret) {
				if line = strings.TrimSpace(line); len(line) >= 16 {
					r.secrets = append(r.secrets, line)
				}
			}
		} else if u, err := url.Parse(secret); err == nil && u.User != nil {
			password, _ := u.User.Password()
			r.secrets = append(r.secrets, password)
		}
	}
	slices.Sort(r.secrets)
	r.secrets = slices.Compact(r.secrets)
	r.secrets = slices.DeleteFunc(r.secrets, func(s string) bool { return len(s) < leastRedacted })
	r.blanks.Store(newBlanks(r.secrets))
}

// Redact returns text with every registered secret replaced. It also finds a
// secret in the forms in which fmt, JSON, URLs, hexadecimal and base64 show the
// whole of it, but not a part of it, nor a secret within a longer text that was
// encoded.
func (r *Redactor) Redact(text string) string {
	if b := r.blanks.Load(); b != nil {
		return b.text(text)
	}
	return text
}

// Handler returns a handler that gives records to next without the registered
// secrets: in the message, in the keys and values of attributes, in groups,
// errors, and in whatever fmt, encoding/json or MarshalText makes of other
// values. A value that holds a secret is replaced by its text, and an error by
// one with the text alone; other values go to next as they are, a
// [slog.LogValuer] resolved. Each value is printed in all these ways, so no
// other goroutine may change it meanwhile.
//
// Register the secrets before the program logs: the attributes that were given
// to With before a secret was registered are not searched again.
func (r *Redactor) Handler(next slog.Handler) slog.Handler {
	return &redactingHandler{r, next}
}

type redactingHandler struct {
	r    *Redactor
	next slog.Handler
}

func (h *redactingHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.next.Enabled(ctx, level)
}

func (h *redactingHandler) Handle(ctx context.Context, record slog.Record) error {
	b := h.r.blanks.Load()
	if b == nil {
		return h.next.Handle(ctx, record)
	}
	message := b.text(record.Message)
	changed := message != record.Message
	attrs := make([]slog.Attr, 0, record.NumAttrs())
	record.Attrs(func(a slog.Attr) bool {
		clean, differs := b.attr(a)
		attrs = append(attrs, clean)
		changed = changed || differs
		return true
	})
	if changed {
		record = slog.NewRecord(record.Time, record.Level, message, record.PC)
		record.AddAttrs(attrs...)
	}
	return h.next.Handle(ctx, record)
}

func (h *redactingHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	if b := h.r.blanks.Load(); b != nil {
		attrs, _ = b.attrs(attrs)
	}
	return &redactingHandler{h.r, h.next.WithAttrs(attrs)}
}

func (h *redactingHandler) WithGroup(name string) slog.Handler {
	return &redactingHandler{h.r, h.next.WithGroup(h.r.Redact(name))}
}

// blanks replaces a fixed set of secrets.
type blanks struct {
	replacer *strings.Replacer
	numeric  bool // whether a number can be a secret
}

func newBlanks(secrets []string) *blanks {
	if len(secrets) == 0 {
		return nil
	}
	b := &blanks{}
	var forms []string
	for _, secret := range secrets {
		forms = append(forms, formsOf(secret)...)
		b.numeric = b.numeric || strings.Trim(secret, "0123456789.+-e") == ""
	}
	// A secret may be a part of another one.
	slices.SortFunc(forms, func(x, y string) int { return len(y) - len(x) })
	var pairs []string
	for _, form := range forms {
		pairs = append(pairs, form, redacted)
	}
	b.replacer = strings.NewReplacer(pairs...)
	return b
}

// formsOf returns the texts in which printers show the secret.
func formsOf(secret string) []string {
	unquote := func(quoted string) string { return quoted[1 : len(quoted)-1] }
	var plain strings.Builder
	encoder := json.NewEncoder(&plain)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(secret) // a string has an encoding
	escaped, _ := json.Marshal(secret)
	data := []byte(secret)
	return []string{
		secret, unquote(strconv.Quote(secret)), unquote(strconv.QuoteToASCII(secret)),
		unquote(strings.TrimSpace(plain.String())), unquote(string(escaped)),
		url.QueryEscape(secret), url.PathEscape(secret), unquote(fmt.Sprint(data)),
		fmt.Sprintf("%x", data), fmt.Sprintf("%X", data),
		base64.RawStdEncoding.EncodeToString(data), base64.RawURLEncoding.EncodeToString(data),
		strings.TrimPrefix(url.UserPassword("u", secret).String(), "u:"),
	}
}

func (b *blanks) text(text string) string { return b.replacer.Replace(text) }

func (b *blanks) attr(a slog.Attr) (clean slog.Attr, changed bool) {
	clean.Key = b.text(a.Key)
	clean.Value, changed = b.value(a.Value)
	return clean, changed || clean.Key != a.Key
}

func (b *blanks) attrs(attrs []slog.Attr) (clean []slog.Attr, changed bool) {
	clean = make([]slog.Attr, len(attrs))
	for i, a := range attrs {
		var differs bool
		clean[i], differs = b.attr(a)
		changed = changed || differs
	}
	return clean, changed
}

// value returns v without secrets, and whether that differs from v.
func (b *blanks) value(v slog.Value) (clean slog.Value, changed bool) {
	switch v.Kind() {
	case slog.KindLogValuer:
		clean, _ = b.value(v.Resolve())
		return clean, true
	case slog.KindGroup:
		attrs, changed := b.attrs(v.Group())
		if changed {
			v = slog.GroupValue(attrs...)
		}
		return v, changed
	case slog.KindString:
		text := b.text(v.String())
		return slog.StringValue(text), text != v.String()
	case slog.KindInt64, slog.KindUint64, slog.KindFloat64:
		if !b.numeric {
			return v, false
		}
		text := b.text(v.String())
		if text == v.String() {
			return v, false
		}
		return slog.StringValue(text), true
	case slog.KindAny:
		return b.any(v)
	}
	return v, false // a bool, a time or a duration
}

// any is value for a value of any type.
func (b *blanks) any(v slog.Value) (clean slog.Value, changed bool) {
	x := v.Any()
	defer func() {
		if recover() != nil { // a method of x; what it panics with may hold a secret
			clean, changed = slog.StringValue(fmt.Sprintf("!PANIC in a method of %T", x)), true
		}
	}()
	if x == nil {
		return v, false
	}
	if containsItself(reflect.ValueOf(x), true, make(map[reference]bool)) {
		return slog.StringValue(fmt.Sprintf("!ERROR: %T contains itself", x)), true
	}
	data, _ := json.Marshal(x)
	full := fmt.Sprintf("%+v", x) // with the numbers of the bytes in x, a form of the secret
	shown := append(texts(x), full, string(data))
	if !slices.ContainsFunc(shown, func(text string) bool { return b.text(text) != text }) {
		return v, false
	}
	switch x := x.(type) {
	case error:
		return slog.AnyValue(errors.New(b.text(x.Error()))), true
	case []byte:
		full = string(x)
	}
	return slog.StringValue(b.text(full)), true
}

// texts returns what handlers may print of x besides the results of fmt and
// encoding/json.
func texts(x any) (all []string) {
	if p := reflect.ValueOf(x); p.Kind() == reflect.Pointer && p.IsNil() {
		return nil // its methods may not expect that
	}
	if e, ok := x.(error); ok {
		all = append(all, e.Error())
	}
	if s, ok := x.(fmt.Stringer); ok {
		all = append(all, s.String())
	}
	if m, ok := x.(encoding.TextMarshaler); ok {
		text, _ := m.MarshalText()
		all = append(all, string(text))
	}
	if b, ok := x.([]byte); ok {
		all = append(all, string(b))
	}
	return all
}

// reference is a map or a slice.
type reference struct {
	at  uintptr
	len int
}

// containsItself reports whether fmt would follow v without end, since a map or
// a slice contains itself. The path holds those that contain v. Below the top,
// fmt does not follow pointers, and it does not look into what prints itself.
func containsItself(v reflect.Value, top bool, path map[reference]bool) bool {
	if v.IsValid() && v.CanInterface() {
		switch v.Interface().(type) {
		case fmt.Formatter, fmt.Stringer, error:
			return false
		}
	}
	switch v.Kind() {
	case reflect.Pointer:
		return top && containsItself(v.Elem(), false, path)
	case reflect.Interface:
		return containsItself(v.Elem(), false, path)
	case reflect.Struct:
		for i := range v.NumField() {
			if containsItself(v.Field(i), false, path) {
				return true
			}
		}
	case reflect.Map, reflect.Slice:
		r := reference{v.Pointer(), v.Len()}
		if path[r] {
			return v.Len() > 0
		}
		path[r] = true
		defer delete(path, r)
		if v.Kind() == reflect.Map {
			for iter := v.MapRange(); iter.Next(); {
				if containsItself(iter.Key(), false, path) || containsItself(iter.Value(), false, path) {
					return true
				}
			}
			return false
		}
		fallthrough
	case reflect.Array:
		switch v.Type().Elem().Kind() { // others hold neither
		case reflect.Interface, reflect.Map, reflect.Slice, reflect.Array, reflect.Struct:
			for i := range v.Len() {
				if containsItself(v.Index(i), false, path) {
					return true
				}
			}
		}
	}
	return false
}

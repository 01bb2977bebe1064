package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"filippo.io/age"

	"github.com/relayguard/relayguard/examples/internal/terminal"
	"github.com/relayguard/relayguard/examples/server/operate"
	"github.com/relayguard/relayguard/history"
	"github.com/relayguard/relayguard/history/archive"
	"github.com/relayguard/relayguard/history/journal"
)

// archiveVerb is a command on the history: of the running server, or of HISTORY_DIR
// where none runs.
type archiveVerb struct {
	env            lookup
	stdout, stderr io.Writer
	cfg            config
	flags          *flag.FlagSet
	json           *bool // nil: the verb's output is data anyway
}

func newArchiveVerb(name, args string, env lookup, stdout, stderr io.Writer) *archiveVerb {
	v := &archiveVerb{env: env, stdout: stdout, stderr: stderr, flags: flag.NewFlagSet("server "+name, flag.ContinueOnError)}
	v.flags.SetOutput(stderr)
	v.flags.Usage = func() {
		fmt.Fprintf(stderr, "usage: server %s %s\n", name, args)
		v.flags.PrintDefaults()
	}
	return v
}

func (v *archiveVerb) parse(args []string) (rest []string, err error) {
	return parseFlags(v.flags, args)
}

// parseFlags takes flags before and after the other arguments.
func parseFlags(flags *flag.FlagSet, args []string) (rest []string, err error) {
	for {
		if err := flags.Parse(args); err != nil {
			return nil, err
		}
		if args = flags.Args(); len(args) == 0 {
			return rest, nil
		}
		rest, args = append(rest, args[0]), args[1:]
	}
}

// takesJSON gives the verb -json, which prints what was done for programs.
func (v *archiveVerb) takesJSON() {
	v.json = v.flags.Bool("json", false, "print what was done as JSON")
}

// say tells what was done, to programs as value.
func (v *archiveVerb) say(value any, format string, args ...any) error {
	if *v.json {
		return json.NewEncoder(v.stdout).Encode(value)
	}
	_, err := fmt.Fprintf(v.stderr, format+"\n", args...)
	return err
}

// end reports err, or nothing, and returns the exit code.
func (v *archiveVerb) end(err error) int {
	var usage usageError
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return exitOK
	case errors.As(err, &usage):
		fmt.Fprintf(v.stderr, "%s: %v\n", v.flags.Name(), err)
		v.flags.Usage()
		return exitUsage
	}
	fmt.Fprintf(v.stderr, "%s: %v\n", v.flags.Name(), err)
	return exitFailed
}

type usageError string

func (e usageError) Error() string { return string(e) }

// exportVerb writes the history as an archive.
func exportVerb(ctx context.Context, args []string, env lookup, stdout, stderr io.Writer) int {
	v := newArchiveVerb("export", "[-o FILE [-force]] [-recipient AGE1… | -passphrase | -passphrase-file FILE]", env, stdout, stderr)
	name := v.flags.String("o", "", "write to this `file`, readable for its owner alone, instead of standard output")
	force := v.flags.Bool("force", false, "replace the file if it exists")
	var keys []string
	v.flags.Func("recipient", "encrypt to this public `key` of age (age1…); may be repeated", func(s string) error {
		keys = append(keys, s)
		return nil
	})
	file := v.flags.String("passphrase-file", "", "encrypt to the passphrase in this `file`")
	ask := v.flags.Bool("passphrase", false, "ask for a passphrase to encrypt to")
	rest, err := v.parse(args)
	if err != nil {
		return v.parsed(err)
	}
	return v.end(v.export(ctx, rest, *name, *force, keys, *file, *ask))
}

func (v *archiveVerb) parsed(err error) int {
	if errors.Is(err, flag.ErrHelp) {
		return exitOK
	}
	return exitUsage // it is told
}

func (v *archiveVerb) export(ctx context.Context, rest []string, name string, force bool, keys []string, file string, ask bool) error {
	if len(rest) > 0 {
		return usageError("it takes no arguments; -o names the file")
	}
	if more(len(keys) > 0, file != "", ask) {
		return usageError("-recipient, -passphrase and -passphrase-file exclude each other")
	}
	var err error
	if v.cfg, err = loadConfig(v.env); err != nil {
		return err
	}
	if _, err := os.Lstat(name); name != "" && !force && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s exists already (-force replaces it)", name)
	}
	to, err := recipients(ctx, keys, file, ask, v.stderr)
	if err != nil {
		return err
	}
	if terminal.Is(v.stdout) && name == "" && len(to) > 0 {
		return errors.New("an encrypted archive is nothing for a terminal: use -o FILE")
	}
	entries, err := v.entries(ctx)
	if err != nil {
		return err
	}
	draw, ended := progressLine(v.stderr)
	// An export ends early with its context only, so that is how the source does it.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	all := func(yield func(history.Entry) bool) {
		for e, err := range entries {
			if err != nil {
				cancel(err)
			}
			if !yield(e) {
				return
			}
		}
	}
	var done archive.Progress
	cfg := archive.ExportConfig{Recipients: to, Progress: draw}
	if name == "" {
		done, err = archive.Export(ctx, v.stdout, all, cfg)
	} else {
		done, err = archive.ExportFile(ctx, name, all, cfg)
	}
	ended()
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	if err != nil {
		return err
	}
	where, how := "", "encrypted"
	if name != "" {
		where = " to " + name
	}
	if len(to) == 0 {
		how = "not encrypted"
	}
	fmt.Fprintf(v.stderr, "exported%s, %s; messages: %d\n", where, how, done.Entries)
	return nil
}

func more(given ...bool) bool {
	n := 0
	for _, g := range given {
		if g {
			n++
		}
	}
	return n > 1
}

func recipients(ctx context.Context, keys []string, file string, ask bool, out io.Writer) (to []age.Recipient, err error) {
	for _, key := range keys {
		r, err := age.ParseRecipients(strings.NewReader(key))
		if err != nil || len(r) != 1 {
			return nil, fmt.Errorf("-recipient is no public key of age, like age1…, as age-keygen prints it")
		}
		to = append(to, r...)
	}
	var passphrase string
	switch {
	case file != "":
		passphrase, err = passphraseFile(file)
	case ask:
		passphrase, err = newPassphrase(ctx, out)
	default:
		return to, nil
	}
	if err == nil && passphrase == "" {
		err = errors.New("the passphrase is empty")
	}
	if err != nil {
		return nil, err
	}
	r, err := archive.PassphraseRecipient(passphrase)
	return []age.Recipient{r}, err
}

// entries reads the history of the running server, or else that in HISTORY_DIR. An
// error comes once, and last.
func (v *archiveVerb) entries(ctx context.Context) (iter.Seq2[history.Entry, error], error) {
	res, err := v.cfg.ask(ctx, http.MethodGet, "/history/export", nil)
	if err == nil {
		in, err := archive.NewReader(res.Body, 0)
		if err != nil {
			res.Body.Close()
			return nil, err
		}
		return func(yield func(history.Entry, error) bool) {
			defer res.Body.Close()
			for {
				e, err := in.Next()
				if err == io.EOF || !yield(e, err) || err != nil {
					return
				}
			}
		}, nil
	}
	if !v.offline(err) {
		return nil, err
	}
	if _, err := os.Stat(v.cfg.historyDir); err != nil {
		return nil, fmt.Errorf("no server runs, and HISTORY_DIR %s: %w", v.cfg.historyDir, errors.Unwrap(err))
	}
	disk, err := v.cfg.openJournal(journal.Config{})
	if err != nil {
		return nil, err
	}
	saved, err := disk.Load(ctx)
	if err = errors.Join(v.cfg.advice(err), disk.Close()); err != nil {
		return nil, err
	}
	return func(yield func(history.Entry, error) bool) {
		for e := range operate.Exported(saved.Entries) {
			if !yield(e, nil) {
				return
			}
		}
	}, nil
}

// offline reports whether err means that no server runs, and there is a directory
// to work on instead. Its lock is the last word on whether one does.
func (v *archiveVerb) offline(err error) bool {
	return v.cfg.historyDir != "" && (errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, errNoOperator))
}

// importVerb replaces the history by that of an archive.
func importVerb(ctx context.Context, args []string, env lookup, stdout, stderr io.Writer) int {
	v := newArchiveVerb("import", "FILE [-identity FILE | -passphrase-file FILE]", env, stdout, stderr)
	v.takesJSON()
	identity := v.flags.String("identity", "", "decrypt with the secret keys of age in this `file`")
	file := v.flags.String("passphrase-file", "", "decrypt with the passphrase in this `file`")
	rest, err := v.parse(args)
	if err != nil {
		return v.parsed(err)
	}
	return v.end(v.load(ctx, rest, *identity, *file))
}

func (v *archiveVerb) load(ctx context.Context, rest []string, identity, file string) error {
	if len(rest) != 1 {
		return usageError("name one archive")
	}
	if more(identity != "", file != "") {
		return usageError("-identity and -passphrase-file exclude each other")
	}
	var err error
	if v.cfg, err = loadConfig(v.env); err != nil {
		return err
	}
	with, err := identities(identity, file)
	if err != nil {
		return err
	}
	entries, done, err := v.read(ctx, rest[0], with)
	var refused *archive.Error
	if errors.As(err, &refused) && refused.Reason == archive.ReasonEncrypted {
		if !terminal.Is(os.Stdin) {
			return fmt.Errorf("%w: name its key with -identity or -passphrase-file", err)
		}
		text, perr := askPassphrase(ctx, "Passphrase of the archive: ", v.stderr)
		if perr != nil {
			return perr
		}
		id, perr := archive.PassphraseIdentity(text)
		if perr != nil {
			return perr
		}
		entries, done, err = v.read(ctx, rest[0], []age.Identity{id})
	}
	if err != nil {
		return err
	}
	kept, err := v.put(ctx, entries)
	if err != nil {
		return err
	}
	return v.say(operate.Imported{Messages: done.Entries, Kept: kept},
		"imported in the place of the history; messages: %d of %d", kept, done.Entries)
}

func identities(identity, file string) ([]age.Identity, error) {
	switch {
	case identity != "":
		f, err := os.Open(identity)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		ids, err := age.ParseIdentities(f)
		if err != nil {
			return nil, fmt.Errorf("%s holds no secret keys of age, as age-keygen makes them", identity) // age quotes
		}
		return ids, nil
	case file != "":
		text, err := passphraseFile(file)
		if err != nil {
			return nil, err
		}
		id, err := archive.PassphraseIdentity(text)
		if err != nil {
			return nil, fmt.Errorf("%s holds no passphrase", file)
		}
		return []age.Identity{id}, nil
	}
	return nil, nil
}

// read checks the whole archive here, before anything changes anywhere, and holds
// no more of it than will be kept.
func (v *archiveVerb) read(ctx context.Context, name string, with []age.Identity) ([]history.Entry, archive.Progress, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, archive.Progress{}, err
	}
	defer f.Close()
	draw, ended := progressLine(v.stderr)
	defer ended()
	cfg := operate.History{Keep: v.cfg.historyTrimAt, MaxBytes: v.cfg.historyMaxBytes}.Import()
	cfg.Identities, cfg.Progress = with, draw
	return archive.Read(ctx, f, cfg)
}

// put hands entries to the running server, or else puts them into HISTORY_DIR.
func (v *archiveVerb) put(ctx context.Context, entries []history.Entry) (kept int, err error) {
	body, w := io.Pipe()
	go func() {
		_, err := archive.Export(ctx, w, slices.Values(entries), archive.ExportConfig{})
		w.CloseWithError(err) // nil is the end
	}()
	res, err := v.cfg.ask(ctx, http.MethodPost, "/history/import", body)
	body.Close()
	if err == nil {
		defer res.Body.Close()
		var done operate.Imported
		if err := json.NewDecoder(io.LimitReader(res.Body, 1<<20)).Decode(&done); err != nil {
			return 0, errors.New("the answer is not this server's JSON")
		}
		return done.Kept, nil
	}
	if !v.offline(err) {
		return 0, err
	}
	return len(entries), v.onDisk(ctx, func(log *history.Log) error {
		data := make([][]byte, len(entries))
		for i, e := range entries {
			data[i] = e.Data
		}
		_, err := log.Replace(ctx, nil, data...)
		return err
	})
}

// onDisk changes the history in HISTORY_DIR, as a server would.
func (v *archiveVerb) onDisk(ctx context.Context, change func(*history.Log) error) error {
	disk, err := v.cfg.openJournal(journal.Config{})
	if err != nil {
		return err
	}
	keeps := v.cfg.retention()
	keeps.Store = disk
	log, err := history.Open(ctx, keeps)
	if err != nil {
		return errors.Join(v.cfg.advice(err), disk.Close())
	}
	return v.cfg.advice(errors.Join(change(log), log.Close()))
}

// eraseVerb takes messages out of the history, everywhere.
func eraseVerb(ctx context.Context, args []string, env lookup, stdout, stderr io.Writer) int {
	v := newArchiveVerb("erase", "-all | SEQ…", env, stdout, stderr)
	v.takesJSON()
	all := v.flags.Bool("all", false, "erase everything")
	rest, err := v.parse(args)
	if err != nil {
		return v.parsed(err)
	}
	return v.end(v.erase(ctx, rest, *all))
}

func (v *archiveVerb) erase(ctx context.Context, rest []string, all bool) error {
	if all == (len(rest) > 0) {
		return usageError("name messages by their numbers in an export (\"seq\"), or -all")
	}
	var seqs []uint64
	for _, text := range rest {
		seq, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return usageError("a message is named by its number in an export (\"seq\")")
		}
		seqs = append(seqs, seq)
	}
	var err error
	if v.cfg, err = loadConfig(v.env); err != nil {
		return err
	}
	var paths []string
	if all {
		paths = []string{"/history"}
	}
	for _, seq := range seqs {
		paths = append(paths, "/history/"+strconv.FormatUint(seq, 10))
	}
	for _, path := range paths {
		var res *http.Response
		if res, err = v.cfg.ask(ctx, http.MethodDelete, path, nil); err != nil {
			break
		}
		res.Body.Close()
	}
	if v.offline(err) {
		err = v.onDisk(ctx, func(log *history.Log) error {
			if all {
				_, err := log.Clear(ctx, nil)
				return err
			}
			n, err := log.Delete(ctx, seqs...)
			if err == nil && n < len(seqs) {
				err = fmt.Errorf("%d of them were there, and are erased", n)
			}
			return err
		})
	}
	if err != nil {
		return err
	}
	return v.say(map[string]bool{"done": true}, "erased")
}

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
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"filippo.io/age"

	"github.com/relayguard/relayguard/examples/internal/terminal"
	"github.com/relayguard/relayguard/examples/server/config"
	"github.com/relayguard/relayguard/examples/server/operate"
	"github.com/relayguard/relayguard/examples/server/relay"
	"github.com/relayguard/relayguard/examples/server/rooms"
	"github.com/relayguard/relayguard/examples/server/site"
	"github.com/relayguard/relayguard/history"
	"github.com/relayguard/relayguard/history/archive"
	"github.com/relayguard/relayguard/history/journal"
)

// roomConfig is the configuration of a command about the history of a room, or
// of the only conversation if room is empty.
type roomConfig struct {
	config.Config
	room string
}

func roomFlag(flags *flag.FlagSet) *string {
	return flags.String("room", "", "the `room`; required if ROOMS is set")
}

// roomConfig reads the environment, and checks that it has the room.
func (c *call) roomConfig(room *string) (roomConfig, error) {
	cfg, err := c.config()
	switch {
	case err != nil:
	case cfg.Rooms == nil && *room != "":
		err = errors.New("ROOMS is not set, so there are no rooms: leave -room out")
	case cfg.Rooms != nil && *room == "":
		err = errors.New("name a room with -room: ROOMS is " + rooms.Names(cfg.Rooms))
	case cfg.Rooms != nil && !slices.Contains(cfg.Rooms, *room):
		err = fmt.Errorf("-room is %q, and ROOMS is %s", *room, rooms.Names(cfg.Rooms))
	}
	return roomConfig{cfg, *room}, err
}

func (c *roomConfig) operator() *operate.Client {
	client := operator(c.Config)
	client.Room = c.room
	return client
}

// setupExport writes the history as an archive.
func setupExport(flags *flag.FlagSet) func(*call) error {
	var x export
	x.room = roomFlag(flags)
	flags.StringVar(&x.file, "o", "", "write to this `file`, readable by its owner alone, instead of standard output")
	flags.BoolVar(&x.force, "force", false, "replace the file if it exists")
	flags.Func("recipient", "encrypt to this public `key` of age (age1…); may be repeated", func(s string) error {
		x.keys = append(x.keys, s)
		return nil
	})
	flags.StringVar(&x.passphrase, "passphrase-file", "", "encrypt to the passphrase in this `file`")
	flags.BoolVar(&x.ask, "passphrase", false, "ask for a passphrase to encrypt to")
	return x.run
}

// export holds the flags of an export.
type export struct {
	room       *string
	file       string
	force      bool
	keys       []string
	passphrase string // a file
	ask        bool
}

func (x *export) run(c *call) error {
	if len(c.args) > 0 {
		return usageError("this command takes no arguments; -o names the file")
	}
	if several(len(x.keys) > 0, x.passphrase != "", x.ask) {
		return usageError("-recipient, -passphrase and -passphrase-file exclude each other")
	}
	cfg, err := c.roomConfig(x.room)
	if err != nil {
		return err
	}
	if _, err := os.Lstat(x.file); x.file != "" && !x.force && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s exists already (-force replaces it)", x.file)
	}
	to, err := x.recipients(c.ctx, c.stderr)
	if err != nil {
		return err
	}
	if terminal.Is(c.stdout) && x.file == "" && len(to) > 0 {
		return errors.New("an encrypted archive cannot go to a terminal: use -o FILE")
	}
	entries, err := storedEntries(c.ctx, cfg)
	if err != nil {
		return err
	}
	draw, ended := progressLine(c.stderr)
	// Only its context can end an export early, so an error of the source
	// cancels the context.
	ctx, cancel := context.WithCancelCause(c.ctx)
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
	archived := archive.ExportConfig{Recipients: to, Progress: draw}
	if x.file == "" {
		done, err = archive.Export(ctx, terminal.Data(c.stdout), all, archived)
	} else {
		done, err = archive.ExportFile(ctx, x.file, all, archived)
	}
	ended()
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	if err != nil {
		return err
	}
	where, how := "", "encrypted"
	if x.file != "" {
		where = " to " + x.file
	}
	if len(to) == 0 {
		how = "not encrypted"
	}
	fmt.Fprintf(c.stderr, "exported%s, %s; messages: %d\n", where, how, done.Entries)
	return nil
}

// several reports whether more than one of them is true.
func several(given ...bool) bool {
	n := 0
	for _, g := range given {
		if g {
			n++
		}
	}
	return n > 1
}

func (x *export) recipients(ctx context.Context, out io.Writer) (to []age.Recipient, err error) {
	for _, key := range x.keys {
		r, err := age.ParseRecipients(strings.NewReader(key))
		if err != nil || len(r) != 1 {
			return nil, fmt.Errorf("-recipient must be a public key of age, like age1…, as age-keygen prints it")
		}
		to = append(to, r...)
	}
	var passphrase string
	switch {
	case x.passphrase != "":
		passphrase, err = passphraseFile(x.passphrase)
	case x.ask:
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

// storedEntries returns the history of the running server, or the history in
// HISTORY_DIR or in the engine if no server runs. The sequence ends after its
// first error.
func storedEntries(ctx context.Context, cfg roomConfig) (iter.Seq2[history.Entry, error], error) {
	entries, err := cfg.operator().Export(ctx)
	if err == nil || !offline(cfg, err) {
		return entries, err
	}
	if !cfg.RedisURL.IsZero() {
		var all []history.Entry
		err := withEngine(ctx, cfg, func(log *history.Log) error {
			b := log.Since(history.Oldest())
			all = relay.Archived(b.Pins(), b.Entries)
			return nil
		})
		return stored(all), err
	}
	if _, err := os.Stat(cfg.RoomDir(cfg.room)); err != nil {
		return nil, fmt.Errorf("no server runs, and HISTORY_DIR %s: %w", cfg.HistoryDir, errors.Unwrap(err))
	}
	disk, err := cfg.OpenJournal(cfg.room, journal.Config{})
	if err != nil {
		return nil, err
	}
	saved, err := disk.Load(ctx)
	if err = errors.Join(cfg.Advice(err), disk.Close()); err != nil {
		return nil, err
	}
	return stored(relay.Archived(saved.Pins, saved.Entries)), nil
}

// stored returns entries as the sequence that a server's would be.
func stored(entries []history.Entry) iter.Seq2[history.Entry, error] {
	return func(yield func(history.Entry, error) bool) {
		for _, e := range entries {
			if !yield(e, nil) {
				return
			}
		}
	}
}

// offline reports whether err means that no server runs, and whether there is a
// HISTORY_DIR or an engine to work on instead. If a server runs all the same,
// the directory's lock refuses the command, and the engine takes it from both.
func offline(cfg roomConfig, err error) bool {
	// A Unix socket is not there if no server runs, unless one has crashed.
	return (cfg.HistoryDir != "" || !cfg.RedisURL.IsZero()) && (errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, operate.ErrNoAddr))
}

// setupImport replaces the history with the messages of an archive.
func setupImport(flags *flag.FlagSet) func(*call) error {
	identity := flags.String("identity", "", "decrypt with the secret keys of age in this `file`")
	passphrase := flags.String("passphrase-file", "", "decrypt with the passphrase in this `file`")
	room := roomFlag(flags)
	return func(c *call) error {
		file, err := c.oneArg("name one archive")
		if err != nil {
			return err
		}
		if several(*identity != "", *passphrase != "") {
			return usageError("-identity and -passphrase-file exclude each other")
		}
		cfg, err := c.roomConfig(room)
		if err != nil {
			return err
		}
		with, err := identities(*identity, *passphrase)
		if err != nil {
			return err
		}
		entries, done, err := c.readArchive(cfg, file, with)
		var refused *archive.Error
		if errors.As(err, &refused) && refused.Reason == archive.ReasonEncrypted {
			if !terminal.Is(os.Stdin) {
				return fmt.Errorf("%w: name its key with -identity or -passphrase-file", err)
			}
			text, perr := askPassphrase(c.ctx, "Passphrase of the archive: ", c.stderr)
			if perr != nil {
				return perr
			}
			id, perr := archive.PassphraseIdentity(text)
			if perr != nil {
				return perr
			}
			entries, done, err = c.readArchive(cfg, file, []age.Identity{id})
		}
		if err != nil {
			return err
		}
		kept, err := replaceHistory(c.ctx, cfg, entries)
		if err != nil {
			return err
		}
		return c.report(operate.Imported{Messages: done.Entries, Kept: kept},
			"the history is replaced; messages: %d of %d", kept, done.Entries)
	}
}

// report writes the result of a command: value as JSON to standard output if
// -json is set, or else text to standard error.
func (c *call) report(value any, format string, args ...any) error {
	if c.json {
		return json.NewEncoder(c.stdout).Encode(value)
	}
	_, err := fmt.Fprintf(c.stderr, format+"\n", args...)
	return err
}

func identities(identity, passphrase string) ([]age.Identity, error) {
	switch {
	case identity != "":
		f, err := os.Open(identity)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		ids, err := age.ParseIdentities(f)
		if err != nil {
			return nil, fmt.Errorf("%s holds no secret keys of age, as age-keygen makes them", identity) // age's own error quotes the file
		}
		return ids, nil
	case passphrase != "":
		text, err := passphraseFile(passphrase)
		if err != nil {
			return nil, err
		}
		id, err := archive.PassphraseIdentity(text)
		if err != nil {
			return nil, fmt.Errorf("%s holds no passphrase", passphrase)
		}
		return []age.Identity{id}, nil
	}
	return nil, nil
}

// readArchive reads and checks the whole archive before anything changes. It
// holds only the messages that the history will keep.
func (c *call) readArchive(cfg roomConfig, name string, with []age.Identity) ([]history.Entry, archive.Progress, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, archive.Progress{}, err
	}
	defer f.Close()
	draw, ended := progressLine(c.stderr)
	defer ended()
	return site.Imports(cfg.Config).Read(c.ctx, f, draw, with...)
}

// replaceHistory replaces the history of the running server with entries, or
// the history in HISTORY_DIR or in the engine if no server runs. It returns how
// many entries are kept.
func replaceHistory(ctx context.Context, cfg roomConfig, entries []history.Entry) (kept int, err error) {
	done, err := cfg.operator().Import(ctx, entries)
	if err == nil || !offline(cfg, err) {
		return done.Kept, err
	}
	return len(entries), changeStored(ctx, cfg, func(log *history.Log) error {
		data := make([][]byte, len(entries))
		for i, e := range entries {
			data[i] = e.Data
		}
		_, err := log.Replace(ctx, nil, data...)
		return err
	})
}

// engineWait is how long a command waits for the engine.
const engineWait = 5 * time.Second

// withEngine opens the history in the engine as a server does, calls use with
// it, and closes it.
func withEngine(ctx context.Context, cfg roomConfig, use func(*history.Log) error) error {
	engine, err := cfg.NewEngine(nil)
	if err != nil {
		return err
	}
	defer engine.Close()
	some, cancel := context.WithTimeout(ctx, engineWait)
	defer cancel()
	log, err := engine.Open(some, cfg.room, cfg.Retention())
	if err != nil {
		return err
	}
	return errors.Join(use(log), log.Close())
}

// changeStored opens the history in HISTORY_DIR or in the engine as a server
// does, calls change with it, and closes it.
func changeStored(ctx context.Context, cfg roomConfig, change func(*history.Log) error) error {
	if !cfg.RedisURL.IsZero() {
		return withEngine(ctx, cfg, change)
	}
	disk, err := cfg.OpenJournal(cfg.room, journal.Config{})
	if err != nil {
		return err
	}
	keeps := cfg.Retention()
	keeps.Store = disk
	log, err := history.Open(ctx, keeps)
	if err != nil {
		return errors.Join(cfg.Advice(err), disk.Close())
	}
	return cfg.Advice(errors.Join(change(log), log.Close()))
}

// setupErase erases messages from the history on disk, in memory and on
// viewers' pages.
func setupErase(flags *flag.FlagSet) func(*call) error {
	all := flags.Bool("all", false, "erase every message")
	room := roomFlag(flags)
	return func(c *call) error {
		if *all == (len(c.args) > 0) {
			return usageError("name messages by their numbers in an export (\"seq\"), or use -all")
		}
		var seqs []uint64
		for _, text := range c.args {
			seq, err := strconv.ParseUint(text, 10, 64)
			if err != nil {
				return usageError("name a message by its number in an export (\"seq\")")
			}
			seqs = append(seqs, seq)
		}
		cfg, err := c.roomConfig(room)
		if err != nil {
			return err
		}
		if err := erase(c.ctx, cfg, *all, seqs); err != nil {
			return err
		}
		return c.report(map[string]bool{"done": true}, "erased")
	}
}

func erase(ctx context.Context, cfg roomConfig, all bool, seqs []uint64) (err error) {
	if all {
		err = cfg.operator().EraseAll(ctx)
	}
	for _, seq := range seqs {
		if err = cfg.operator().Erase(ctx, seq); err != nil {
			break
		}
	}
	if !offline(cfg, err) {
		return err
	}
	return changeStored(ctx, cfg, func(log *history.Log) error {
		if all {
			_, err := log.Clear(ctx, nil)
			return err
		}
		n, err := log.Delete(ctx, seqs...)
		if err == nil && n < len(seqs) {
			err = fmt.Errorf("only %d of the messages existed; they are erased", n)
		}
		return err
	})
}

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/relayguard/relayguard/examples/internal/terminal"
	"github.com/relayguard/relayguard/history/archive"
)

// progressLine returns funcs that draw and erase a line with the progress of an
// export or import. If w is no terminal, they draw nothing.
func progressLine(w io.Writer) (draw func(archive.Progress), end func()) {
	if !terminal.Is(w) {
		return nil, func() {}
	}
	var last time.Time
	drawn := false
	draw = func(p archive.Progress) {
		if now := time.Now(); p.Done || now.Sub(last) >= 100*time.Millisecond {
			last, drawn = now, true
			_ = terminal.Control(w, "\r")
			fmt.Fprintf(w, "messages: %d, KiB: %d", p.Entries, p.Bytes>>10)
		}
	}
	return draw, func() {
		if drawn {
			_ = terminal.Control(w, terminal.ClearLine) // the result, which is printed next, has the final numbers
		}
	}
}

// askPassphrase reads a passphrase from the terminal, without showing it.
func askPassphrase(ctx context.Context, prompt string, out io.Writer) (string, error) {
	if !terminal.Is(os.Stdin) {
		return "", errors.New("there is no terminal to ask for the passphrase: use -passphrase-file")
	}
	return terminal.ReadPassword(ctx, prompt, out)
}

// newPassphrase asks for a passphrase twice, since a mistyped one would make
// the archive unreadable.
func newPassphrase(ctx context.Context, out io.Writer) (string, error) {
	first, err := askPassphrase(ctx, "Passphrase for the archive: ", out)
	if err != nil {
		return "", err
	}
	again, err := askPassphrase(ctx, "The same again: ", out)
	if err == nil && first != again {
		err = errors.New("the two passphrases differ")
	}
	return first, err
}

// passphraseFile returns the text of a file, without the line end that editors
// add.
func passphraseFile(name string) (string, error) {
	text, err := os.ReadFile(name)
	if err == nil && len(text) > 4096 {
		err = errors.New("the passphrase file is longer than 4 KiB")
	}
	return string(bytes.TrimRight(text, "\r\n")), err
}

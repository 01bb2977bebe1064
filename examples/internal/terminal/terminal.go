// Package terminal reports whether a program talks to a person, asks for
// secrets, and keeps the text of strangers from controlling a terminal.
package terminal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/term"
)

// Is reports whether f is a terminal. The null device is a character device
// too, but not a terminal.
func Is(f any) bool {
	_, ok := descriptor(f)
	return ok
}

// Colours reports whether f is a terminal whose user wants colours
// (https://no-color.org).
func Colours(f any) bool {
	return os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && Is(f)
}

func descriptor(f any) (fd int, ok bool) {
	if g, guarded := f.(*guard); guarded {
		f = g.w
	}
	file, ok := f.(*os.File)
	if !ok {
		return 0, false
	}
	fd = int(file.Fd())
	return fd, term.IsTerminal(fd)
}

// ReadPassword writes prompt to out and reads a line from standard input,
// without showing it. It returns an error if standard input is not a terminal,
// or if ctx ends.
func ReadPassword(ctx context.Context, prompt string, out io.Writer) (string, error) {
	fd, ok := descriptor(os.Stdin)
	if !ok {
		return "", errors.New("standard input is not a terminal")
	}
	// The end of ctx does not end the read, so term.ReadPassword does not
	// restore the terminal's state. This function does.
	before, err := term.GetState(fd)
	if err != nil {
		return "", err
	}
	type answer struct {
		text []byte
		err  error
	}
	read := make(chan answer, 1)
	fmt.Fprint(out, prompt)
	go func() {
		text, err := term.ReadPassword(fd)
		read <- answer{text, err}
	}()
	select {
	case a := <-read:
		fmt.Fprintln(out)
		return string(a.text), a.err
	case <-ctx.Done():
		fmt.Fprintln(out)
		return "", errors.Join(ctx.Err(), term.Restore(fd, before))
	}
}

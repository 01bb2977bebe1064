// Package services_test compares the services of examples/services with their
// peers in this directory, which do the same with other libraries.
package services_test

import (
	"go/scanner"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// services are the parts of our services that their peers do with other
// libraries.
var services = map[string]string{
	"chat":         "chat",
	"dashboard":    "dashboard",
	"logstream":    "logstream",
	"restapi":      "restapi",
	"thirdparties": "thirdparties",
	"worker":       "worker/config",
}

// Each service has fewer lines of code than its peer.
func TestLines(t *testing.T) {
	for name, part := range services {
		t.Run(name, func(t *testing.T) {
			here, there := linesOf(t, filepath.Join("../../services", part)), linesOf(t, name)
			t.Logf("%d lines here, %d in the peer", here, there)
			if here == 0 || here >= there {
				t.Errorf("%d lines here, %d in the peer", here, there)
			}
		})
	}
	for _, dir := range []string{".", "../../services"} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if e.IsDir() && services[e.Name()] == "" {
				t.Errorf("%s is not on the list", filepath.Join(dir, e.Name()))
			}
		}
	}
}

// linesOf counts the lines of code of a program, without its tests.
func linesOf(t *testing.T, dir string) (n int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") {
			text, err := os.ReadFile(path)
			n += lines(text)
			return err
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// lines counts the lines that have more than white space and comments.
func lines(text []byte) int {
	fset := token.NewFileSet()
	f := fset.AddFile("", -1, len(text))
	var s scanner.Scanner
	s.Init(f, text, nil, 0)
	code := map[int]bool{}
	for {
		pos, tok, literal := s.Scan()
		if tok == token.EOF {
			return len(code)
		}
		if tok == token.SEMICOLON && literal == "\n" {
			continue // the end of a line, not a character of it
		}
		first := f.Line(pos)
		for line := first; line <= first+strings.Count(literal, "\n"); line++ {
			code[line] = true
		}
	}
}

func TestCount(t *testing.T) {
	for _, row := range []struct {
		why, text string
		want      int
	}{
		{"nothing", "", 0},
		{"blank lines and comments", "// one\n\n/* two\nthree */\npackage x // four\n", 1},
		{"two statements", "package x; var y int\n", 1},
		{"a literal of three lines", "package x\nvar y = `a\n\nb`\n", 4},
	} {
		if got := lines([]byte(row.text)); got != row.want {
			t.Errorf("%s: %d, want %d", row.why, got, row.want)
		}
	}
}

package examples_test

import (
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"unicode"
)

// parse returns the documentation of a package of the library, which contains
// every exported name, and the package's files.
func parse(t *testing.T, path string) (*doc.Package, []*ast.File) {
	t.Helper()
	dir := filepath.Join("..", path)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	fset := token.NewFileSet()
	var files []*ast.File
	for _, e := range entries {
		if name := e.Name(); strings.HasSuffix(name, ".go") && !strings.HasSuffix(name, "_test.go") {
			f, err := parser.ParseFile(fset, filepath.Join(dir, name), nil, parser.ParseComments)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, f)
		}
	}
	p, err := doc.NewFromFiles(fset, files, module+path, doc.PreserveAST)
	if err != nil {
		t.Fatal(err)
	}
	return p, files
}

// TestVocabulary checks the rules that are the same in every package: how a
// configuration error is reported, how constants are named, and how the text of
// an error begins.
func TestVocabulary(t *testing.T) {
	for _, p := range packages {
		t.Run(p.path, func(t *testing.T) {
			exported, files := parse(t, p.path)
			for _, typ := range exported.Types {
				checkType(t, exported.Name, typ)
			}
			for _, f := range files {
				for _, d := range f.Decls {
					switch d := d.(type) {
					case *ast.GenDecl:
						checkErrors(t, exported.Name, d)
					case *ast.FuncDecl:
						checkErrorMethod(t, exported.Name, d)
					}
				}
			}
		})
	}
}

func checkType(t *testing.T, pkg string, typ *doc.Type) {
	t.Helper()
	spec := typ.Decl.Specs[0].(*ast.TypeSpec)
	switch {
	case typ.Name == "ConfigError":
		var fields []string
		for _, f := range spec.Type.(*ast.StructType).Fields.List {
			fields = append(fields, f.Names[0].Name+" "+typeName(f.Type))
		}
		if want := []string{"Field string", "Reason error"}; !reflect.DeepEqual(fields, want) {
			t.Errorf("ConfigError has %q, want %q", fields, want)
		}
		methods := map[string]bool{}
		for _, m := range typ.Methods {
			methods[m.Name] = true
		}
		if !methods["Error"] || !methods["Unwrap"] {
			t.Error("ConfigError lacks Error or Unwrap, so errors.Is does not find its Reason")
		}
	case strings.HasSuffix(typ.Name, "Problem"):
		t.Errorf("%s: use a ConfigReason for a refused field, and a Reason for an error at run time", typ.Name)
	}
	for _, group := range typ.Consts {
		for _, name := range group.Names {
			if ast.IsExported(name) && !beginsWithWordOf(name, typ.Name) {
				t.Errorf("%s.%s is a %s and does not begin with a word of that name", pkg, name, typ.Name)
			}
		}
	}
}

func typeName(e ast.Expr) string {
	if id, ok := e.(*ast.Ident); ok {
		return id.Name
	}
	return ""
}

// beginsWithWordOf reports whether name begins with typ or a word of typ, and
// is longer than that.
func beginsWithWordOf(name, typ string) bool {
	for _, word := range append(words(typ), typ) {
		if len(name) > len(word) && strings.HasPrefix(name, word) {
			return true
		}
	}
	return false
}

// words splits a name in mixed caps.
func words(name string) (all []string) {
	begin := 0
	runes := []rune(name)
	for i := 1; i <= len(runes); i++ {
		end := i == len(runes)
		if end || unicode.IsUpper(runes[i]) && (!unicode.IsUpper(runes[i-1]) || i+1 < len(runes) && unicode.IsLower(runes[i+1])) {
			all = append(all, string(runes[begin:i]))
			begin = i
		}
	}
	return all
}

// checkErrors checks the texts of errors in package variables.
func checkErrors(t *testing.T, pkg string, d *ast.GenDecl) {
	t.Helper()
	if d.Tok != token.VAR {
		return
	}
	for _, s := range d.Specs {
		v := s.(*ast.ValueSpec)
		for i, name := range v.Names {
			if !ast.IsExported(name.Name) || i >= len(v.Values) {
				continue
			}
			call, ok := v.Values[i].(*ast.CallExpr)
			if !ok || len(call.Args) == 0 {
				continue
			}
			if text, ok := literal(call.Args[0]); ok && !strings.HasPrefix(text, pkg+": ") {
				t.Errorf("%s is %q, which does not begin with %q", name.Name, text, pkg+": ")
			}
		}
	}
}

// checkErrorMethod checks the first text in a method Error. The methods of
// Reasons are exempt, because a Reason is a part of an error's text.
func checkErrorMethod(t *testing.T, pkg string, d *ast.FuncDecl) {
	t.Helper()
	if d.Name.Name != "Error" || d.Recv == nil || d.Type.Results == nil || len(d.Type.Params.List) > 0 {
		return
	}
	recv := d.Recv.List[0].Type
	if star, ok := recv.(*ast.StarExpr); ok {
		recv = star.X
	}
	if name := typeName(recv); !ast.IsExported(name) || strings.HasSuffix(name, "Reason") {
		return
	}
	found := false
	ast.Inspect(d.Body, func(n ast.Node) bool {
		if compared, ok := n.(*ast.BinaryExpr); ok && (compared.Op == token.EQL || compared.Op == token.NEQ) {
			return false
		}
		if text, ok := literal(n); ok && !found {
			found = true
			if !strings.HasPrefix(text, pkg+": ") {
				t.Errorf("%s.Error begins with %q, want %q", typeName(recv), text, pkg+": ")
			}
		}
		return !found
	})
}

func literal(n ast.Node) (string, bool) {
	lit, ok := n.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return "", false
	}
	text, err := strconv.Unquote(lit.Value)
	return text, err == nil
}

package redistest

import (
	"flag"
	"os"
	"testing"
)

// Main runs the tests of a package, for its TestMain. Parallel tests run eight
// at a time, also on a small machine, since they spend their time waiting for
// engines. The flag -parallel of go test sets another number.
func Main(m *testing.M) {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		_ = flag.Set("test.parallel", "8") // the flag exists in every test
	}
	os.Exit(m.Run())
}

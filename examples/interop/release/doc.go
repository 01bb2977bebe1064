// Package release tests examples/deploy/release, which builds the programs of a
// release. It is a package of its own because it compiles everything anew.
package release

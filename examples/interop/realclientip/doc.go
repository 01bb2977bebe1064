// Package realclientip compares clientip with
// github.com/realclientip/realclientip-go, row by row.
package realclientip

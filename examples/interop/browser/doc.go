// Package browser holds the tests of the relay's page in a real browser.
package browser

package headers

import "net/http"

// A Grading is what Grade found.
type Grading struct {
	Score    int    // 0 to 145; over 100 by bonus points, which count only from 90 up
	Grade    string // "A+" to "F"
	Findings []Finding
}

// A Finding is one reason for points, or one remark.
type Finding struct {
	Test   string // the Observatory's name of the test, say "content-security-policy"; a header's name in a remark
	Result string // the Observatory's name of the outcome, say "csp-implemented-with-no-unsafe"; empty in a remark
	Points int    // what it adds to 100
	Reason string // the same in words
	Remark bool   // the Observatory does not look at it
}

// Grade scores a response.
func Grade(h http.Header, tls bool) Grading { return Grading{} }

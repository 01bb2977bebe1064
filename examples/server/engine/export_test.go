package engine

// ReportOf makes a report of an answer to INFO.
var ReportOf = report

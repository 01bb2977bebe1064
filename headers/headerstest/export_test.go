package headerstest

// Request is the function that parses patterns, which the fuzz target calls
// without a server.
var Request = request

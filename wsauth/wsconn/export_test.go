package wsconn

// Negotiate answers the offers in the lines of a header.
var Negotiate = negotiate

package sse

// AppendEvent appends an event as a stream has it.
var AppendEvent = appendEvent

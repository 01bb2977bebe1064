package operate

// For tests.
var HandleProfiles = handleProfiles

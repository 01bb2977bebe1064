package refresh

import "os"

// SetSyncDir replaces the sync of a directory until restore is called.
func SetSyncDir(f func(*os.File) error) (restore func()) {
	old := syncDir
	syncDir = f
	return func() { syncDir = old }
}

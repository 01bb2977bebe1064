package journal

import "os"

// Directory and File are what a journal needs of a file system.
type (
	Directory = directory
	File      = file
)

// OpenIn opens a journal in dir, without the checks of Open.
func OpenIn(dir Directory, cfg Config) *Journal { return &Journal{cfg: cfg, dir: dir} }

// SyncDirectory syncs a directory as a journal does.
func SyncDirectory(name string) error {
	dir, err := os.Open(name)
	if err != nil {
		return err
	}
	defer dir.Close()
	return (&disk{dir: dir}).Sync()
}

package envcheck

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"
)

// maxFile bounds what NAME_FILE may hold, so that a wrong path, say of a log,
// is an error and not a memory problem.
const maxFile = 64 << 10

const emptyFile CheckReason = "names an empty file"

// readFile returns what the file holds, without line ends at its end: editors
// and echo add one that nobody means. No reason quotes the path, for a
// value put into NAME_FILE by mistake would be seen there.
func readFile(path string) (value string, reason CheckReason) {
	// Opening a pipe would wait for its writer, so look before.
	info, err := os.Stat(path)
	if err != nil {
		return "", unreadable(err)
	}
	switch {
	case info.IsDir():
		return "", "names a directory, not a file"
	case !info.Mode().IsRegular():
		return "", "does not name a regular file"
	}
	f, err := os.Open(path)
	if err != nil {
		return "", unreadable(err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return "", unreadable(err)
	}
	if len(data) > maxFile {
		return "", "names a file of more than 64 KiB"
	}
	if value = strings.TrimRight(string(data), "\r\n"); value == "" {
		return "", emptyFile
	}
	return value, ""
}

func unreadable(err error) CheckReason {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "names a file that does not exist"
	case errors.Is(err, fs.ErrPermission):
		return "names a file that this process may not read"
	}
	return "names a file that cannot be read"
}

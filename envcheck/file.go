package envcheck

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"
)

// maxFile is the most bytes that a file named by NAME_FILE may hold. Without
// it, the path of a large file, such as a log, would fill the memory.
const maxFile = 64 << 10

const (
	emptyFile   CheckReason = "names an empty file"
	missingFile CheckReason = "names a file that does not exist"
)

// openFile opens a regular file. No reason quotes the path: someone may have
// put the secret itself in its place.
func openFile(path string) (f *os.File, reason CheckReason) {
	// os.Open of a named pipe waits until another process writes to it, so the
	// kind of file is checked first.
	info, err := os.Stat(path)
	if err != nil {
		return nil, unreadable(err)
	}
	switch {
	case info.IsDir():
		return nil, "names a directory, not a file"
	case !info.Mode().IsRegular():
		return nil, "does not name a regular file"
	}
	if f, err = os.Open(path); err != nil {
		return nil, unreadable(err)
	}
	return f, ""
}

// readFile returns the content of the file without the line ends at its end,
// which editors and echo add.
func readFile(path string) (value string, reason CheckReason) {
	f, reason := openFile(path)
	if reason != "" {
		return "", reason
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
		return missingFile
	case errors.Is(err, fs.ErrPermission):
		return "names a file that this process may not read"
	}
	return "names a file that cannot be read"
}

package native

import (
	"io"
	"os"
	"path/filepath"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/cas/lockfile"
)

// copyToDir copies the program into a directory of our own. A directory whose owner died goes with the next one made.
func copyToDir(r io.Reader) (*executable, error) {
	dir, err := lockfile.NewScratch(os.TempDir(), "convhost-program-")
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir.Dir, "plugin.exe") // the suffix matters on Windows only
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o500)
	if err != nil {
		dir.Remove()
		return nil, abi.Errorf(abi.ErrIO, "copy plugin: %w", err)
	}
	err = copyProgram(f, r)
	if cerr := f.Close(); err == nil && cerr != nil {
		err = abi.Errorf(abi.ErrIO, "copy plugin: %w", cerr)
	}
	if err != nil {
		dir.Remove()
		return nil, err
	}
	return &executable{path: path, close: func() { dir.Remove() }}, nil
}

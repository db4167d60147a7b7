package native

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/convhost/convhost/abi"
)

// executable is a verified program that cannot change any more.
type executable struct {
	name   string
	path   string // what to execute
	digest string
	close  func()
}

// maxExecutable is the largest program that is loaded: a plugin is some 20 MB.
const maxExecutable = 1 << 30

// openExecutable copies the program at path to where nobody else can write, and compares the copy's digest.
func openExecutable(path, want string) (*executable, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fileError(err)
	}
	defer f.Close()
	if fi, err := f.Stat(); err != nil {
		return nil, fileError(err)
	} else if !fi.Mode().IsRegular() {
		return nil, abi.Errorf(abi.ErrInvalid, "plugin %s is not a regular file", path)
	}
	sum := sha256.New()
	program := bufio.NewReader(io.TeeReader(io.LimitReader(f, maxExecutable+1), sum))
	private := privateCopy
	if head, _ := program.Peek(2); string(head) == "#!" {
		private = copyToDir // its interpreter opens it by name
	}
	exe, err := private(program)
	if err != nil {
		return nil, err
	}
	exe.name = strings.TrimSuffix(filepath.Base(path), ".exe")
	exe.digest = "sha256:" + hex.EncodeToString(sum.Sum(nil))
	if want != "" && exe.digest != "sha256:"+strings.ToLower(strings.TrimPrefix(want, "sha256:")) {
		exe.close()
		return nil, abi.Errorf(abi.ErrDigest, "plugin %s has digest %s, want %s", path, exe.digest, want)
	}
	return exe, nil
}

func fileError(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return abi.Errorf(abi.ErrNotFound, "plugin: %w", err)
	case errors.Is(err, fs.ErrPermission):
		return abi.Errorf(abi.ErrDenied, "plugin: %w", err)
	}
	return abi.Errorf(abi.ErrIO, "plugin: %w", err)
}

// copyProgram writes r to w within the limit.
func copyProgram(w io.Writer, r io.Reader) error {
	n, err := io.Copy(w, r)
	switch {
	case err != nil:
		return abi.Errorf(abi.ErrIO, "copy plugin: %w", err)
	case n > maxExecutable:
		return abi.Errorf(abi.ErrLimit, "plugin is larger than %d bytes", maxExecutable)
	}
	return nil
}

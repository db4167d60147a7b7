package native

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
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
	program := bufio.NewReader(&digesting{io.LimitReader(f, maxExecutable+1), sum})
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

// digesting digests what is read from r, beside the copying if all is copied at once: programs are large, and a user waits.
type digesting struct {
	r   io.Reader
	sum hash.Hash
}

// Read implements io.Reader.
func (d *digesting) Read(p []byte) (int, error) {
	n, err := d.r.Read(p)
	d.sum.Write(p[:n])
	return n, err
}

// WriteTo implements io.WriterTo.
func (d *digesting) WriteTo(w io.Writer) (total int64, err error) {
	buf := make([]byte, 1<<20)
	for {
		n, rerr := d.r.Read(buf)
		if n > 0 {
			done := make(chan struct{})
			go func() {
				d.sum.Write(buf[:n])
				close(done)
			}()
			m, werr := w.Write(buf[:n])
			<-done
			total += int64(m)
			if werr != nil {
				return total, werr
			}
		}
		if rerr == io.EOF {
			return total, nil
		} else if rerr != nil {
			return total, rerr
		}
	}
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

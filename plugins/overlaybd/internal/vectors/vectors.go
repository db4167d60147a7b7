// Package vectors helps the tests of overlaybd's codecs: files with one broken rule and the class they must be refused with,
// layers made by upstream, and readers that behave oddly.
package vectors

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/convhost/convhost/abi"
)

// Vector is a test file: a readable header, an empty line, bytes.
type Vector struct {
	Name   string
	Format string // name of the codec package
	Expect string // ok, corrupt, truncated, digest, limit or unsupported
	Field  string // the field that the error names, if not ok
	MadeBy string
	Data   []byte
}

var classes = map[string]abi.Class{
	"corrupt": abi.ErrCorrupt, "digest": abi.ErrDigest, "truncated": abi.ErrTruncated, "limit": abi.ErrLimit, "unsupported": abi.ErrUnsupported,
}

// Load reads all vectors of dir and fails the test when there are none.
func Load(t testing.TB, dir string) []Vector {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.vec"))
	if err != nil {
		t.Fatal(err)
	}
	if len(names) == 0 {
		t.Fatalf("no vectors in %s", dir)
	}
	var out []Vector
	for _, n := range names {
		b, err := os.ReadFile(n)
		if err != nil {
			t.Fatal(err)
		}
		v, err := parse(b)
		if err != nil {
			t.Fatalf("%s: %v", n, err)
		}
		v.Name = strings.TrimSuffix(filepath.Base(n), ".vec")
		out = append(out, v)
	}
	return out
}

func parse(b []byte) (v Vector, err error) {
	r := bufio.NewReader(bytes.NewReader(b))
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return v, err
		}
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		switch key {
		case "format":
			v.Format = value
		case "expect":
			v.Expect = value
		case "field":
			v.Field = value
		case "made-by":
			v.MadeBy = value
		case "encoding":
			if value != "zstd" {
				return v, fmt.Errorf("encoding %q", value)
			}
		case "":
			d, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1))
			if err != nil {
				return v, err
			}
			defer d.Close()
			v.Data, err = io.ReadAll(d)
			return v, err
		default:
			return v, fmt.Errorf("header line %q", line)
		}
	}
}

// Save writes v to dir.
func Save(t testing.TB, dir string, v Vector) {
	t.Helper()
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	head := fmt.Sprintf("format: %s\nexpect: %s\nfield: %s\nmade-by: %s\nencoding: zstd\n\n", v.Format, v.Expect, v.Field, v.MadeBy)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, v.Name+".vec"), e.EncodeAll(v.Data, []byte(head)), 0o644); err != nil {
		t.Fatal(err)
	}
}

// Check fails the test unless err is what v expects.
func (v Vector) Check(t testing.TB, err error) {
	t.Helper()
	if v.Expect == "ok" {
		if err != nil {
			t.Errorf("%s: %v", v.Name, err)
		}
		return
	}
	var fe *abi.FormatError
	if !errors.As(err, &fe) || fe.Class != classes[v.Expect] || fe.Field != v.Field {
		t.Errorf("%s: got %v, want %s of %s", v.Name, err, v.Expect, v.Field)
	}
}

// Known fails the test unless err has a class that input can cause.
func Known(t testing.TB, err error) {
	t.Helper()
	switch abi.ClassOf(err) {
	case abi.ErrCorrupt, abi.ErrTruncated, abi.ErrDigest, abi.ErrUnsupported, abi.ErrLimit:
	default:
		t.Fatalf("class %v: %v", abi.ClassOf(err), err)
	}
}

// Layer returns a file of plugins/overlaybd/testdata.
func Layer(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "testdata", name+".zst")) // from a codec's folder
	if errors.Is(err, fs.ErrNotExist) {
		b, err = os.ReadFile(filepath.Join("testdata", name+".zst")) // from the plugin's
	}
	if err != nil {
		t.Fatal(err)
	}
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	out, err := d.DecodeAll(b, nil)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Shared returns the path of a file of the shared test data, and skips the test when there is none.
func Shared(t testing.TB, name string) string {
	t.Helper()
	dir := os.Getenv("CONVHOST_TESTDATA")
	if dir == "" {
		t.Skip("CONVHOST_TESTDATA is not set: " + name + " is too big for the repository")
	}
	return filepath.Join(dir, filepath.FromSlash(name))
}

// Sized is a reader with the size that goes with it.
type Sized struct {
	Name string
	io.ReaderAt
	Size int64
}

// Odd returns readers of b that keep the contract of io.ReaderAt in unusual ways.
func Odd(b []byte) []Sized {
	n := int64(len(b))
	return []Sized{
		{"end with data", endReader(b), n},
		{"section", io.NewSectionReader(bytes.NewReader(append([]byte("xyz"), b...)), 3, n), n},
	}
}

type endReader []byte

// ReadAt returns io.EOF together with the last bytes.
func (r endReader) ReadAt(p []byte, off int64) (int, error) {
	if off >= int64(len(r)) {
		return 0, io.EOF
	}
	n := copy(p, r[off:])
	if off+int64(n) == int64(len(r)) {
		return n, io.EOF
	}
	return n, nil
}

// ErrRead is what a Failing reader returns.
var ErrRead = errors.New("the disk is gone")

// Failing reads b up to byte At and then fails.
type Failing struct {
	B  []byte
	At int64
}

// ReadAt fails for everything from byte At on.
func (r Failing) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > r.At {
		return copy(p, r.B[min(off, r.At):r.At]), ErrRead
	}
	return copy(p, r.B[off:]), nil
}

// Edges returns every edge −1, 0 and +1 that lies inside a file of size bytes and is not its end.
func Edges(size int64, edges ...int64) []int64 {
	seen := map[int64]bool{}
	var out []int64
	for _, e := range edges {
		for _, cut := range []int64{e - 1, e, e + 1} {
			if cut >= 0 && cut < size && !seen[cut] {
				seen[cut] = true
				out = append(out, cut)
			}
		}
	}
	return out
}

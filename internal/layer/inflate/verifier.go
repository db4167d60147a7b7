package inflate

import (
	"crypto/sha256"
	_ "crypto/sha512" // digests of descriptors may be sha384 and sha512
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/convhost/convhost/abi"
	"github.com/opencontainers/go-digest"
)

// Verifier counts and digests the bytes that are read through it and checks a promise at their end: instead of io.EOF
// its Read then returns an error. It is used from one goroutine.
type Verifier struct {
	r     io.Reader
	what  string
	want  digest.Digest
	size  int64
	n     int64
	sha   hash.Hash
	other hash.Hash // for a promised digest that is not SHA-256
	below *Verifier // sees the same bytes: its SHA-256 counts, nothing is digested twice
	err   error
}

// NewVerifier returns a Verifier of r. what names the bytes in errors ("stored layer"). want "" promises no digest, size
// -1 no size. A digest that is malformed or of an unknown algorithm is ErrInvalid.
func NewVerifier(r io.Reader, what string, want digest.Digest, size int64) (*Verifier, error) {
	v := &Verifier{r: r, what: what, want: want, size: size, sha: sha256.New()}
	if want == "" {
		return v, nil
	}
	if err := want.Validate(); err != nil {
		return nil, abi.Errorf(abi.ErrInvalid, "%s: digest %q: %w", what, want, err)
	}
	if want.Algorithm() != digest.SHA256 {
		v.other = want.Algorithm().Hash()
	}
	return v, nil
}

// Read reads the next bytes. More bytes than promised are an error at once.
func (v *Verifier) Read(p []byte) (int, error) {
	if v.err != nil {
		return 0, v.err
	}
	n, err := v.r.Read(p)
	if v.below == nil {
		v.sha.Write(p[:n])
	}
	if v.other != nil {
		v.other.Write(p[:n])
	}
	v.n += int64(n)
	switch {
	case v.size >= 0 && v.n > v.size:
		n, err = 0, v.fail(abi.ErrDigest, "size", "more", fmt.Sprintf("%d bytes as promised", v.size))
	case err == io.EOF:
		if e := v.check(); e != nil {
			err = e
		}
	case err != nil:
		err = v.ioError(err)
	}
	v.err = err
	return n, err
}

// ioError gives errors of the source a class if they have none.
func (v *Verifier) ioError(err error) error {
	var c abi.Class
	if errors.As(err, &c) {
		return err
	}
	if c = abi.ClassOf(err); c == abi.ErrInternal {
		c = abi.ErrIO
	}
	if err == io.ErrUnexpectedEOF {
		c = abi.ErrTruncated
	}
	return abi.Errorf(c, "%s at 0x%x: %w", v.what, v.n, err)
}

func (v *Verifier) check() error {
	if v.size >= 0 && v.n < v.size {
		return v.fail(abi.ErrTruncated, "size", fmt.Sprint(v.n), fmt.Sprintf("%d bytes as promised", v.size))
	}
	if v.want == "" {
		return nil
	}
	h := v.sum()
	if v.other != nil {
		h = v.other
	}
	if got := digest.NewDigest(v.want.Algorithm(), h); got != v.want {
		return v.fail(abi.ErrDigest, "digest", got.String(), v.want.String()+" as promised")
	}
	return nil
}

func (v *Verifier) fail(c abi.Class, field, got, want string) error {
	return &abi.FormatError{Class: c, Format: v.what, Off: v.n, Field: field, Got: got, Want: want}
}

// Size returns how many bytes have passed.
func (v *Verifier) Size() int64 { return v.n }

// SHA256 returns the digest of the bytes that have passed.
func (v *Verifier) SHA256() (sum [32]byte) {
	v.sum().Sum(sum[:0])
	return sum
}

func (v *Verifier) sum() hash.Hash {
	if v.below != nil {
		return v.below.sha // may be ahead, but not at the end
	}
	return v.sha
}

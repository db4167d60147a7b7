package lsmt

import (
	"encoding/hex"
	"strings"

	"github.com/convhost/convhost/abi"
)

const uuidText = 36

// UUID names a layer in its header; the zero UUID means none. Readers do not check the chain of parents. By convention it
// is the first 16 bytes of the layer's chain ID.
type UUID [16]byte

// ParseUUID reads the form 8-4-4-4-12 in either case. Anything else is [abi.ErrInvalid].
func ParseUUID(s string) (UUID, error) {
	u, ok := parseUUID(s)
	if !ok {
		return u, abi.Errorf(abi.ErrInvalid, "lsmt: uuid is %q, want 8-4-4-4-12 hexadecimal digits", s)
	}
	return u, nil
}

func parseUUID(s string) (u UUID, ok bool) {
	if len(s) != uuidText {
		return UUID{}, false
	}
	for _, k := range []int{8, 13, 18, 23} {
		if s[k] != '-' {
			return UUID{}, false
		}
	}
	digits := s[:8] + s[9:13] + s[14:18] + s[19:23] + s[24:]
	if n, err := hex.Decode(u[:], []byte(digits)); err != nil || n != len(u) {
		return UUID{}, false
	}
	return u, true
}

// String returns the form of the headers: 36 characters, upper-case.
func (u UUID) String() string {
	s := strings.ToUpper(hex.EncodeToString(u[:]))
	return s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:]
}

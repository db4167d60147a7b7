package layer

import (
	"bytes"
	"encoding/binary"
)

// A header block, 512 bytes. Numbers are octal text, or big-endian two's complement when the first bit is set
// (base-256). Strings end at the first NUL or at the field's end.
//
//	  0 100 name       100 8 mode     108 8 uid       116 8 gid       124 12 size     136 12 mtime
//	148 8 checksum     156 1 type     157 100 link    257 6 magic     263 2 version
//	265 32 user        297 32 group   329 8 dev major 337 8 dev minor
//	345 155 prefix                    in USTAR and pax ("ustar\0")
//	345 131 prefix     508 4 "tar\0"  in star
//	345 12 atime       357 12 ctime   386 4×(12 offset, 12 length) sparse, 482 1 more follow, 483 12 real size
//	                                  in GNU ("ustar  \0")
type block []byte

const (
	formatV7 = iota
	formatUSTAR
	formatStar
	formatGNU
)

func (b block) format() int {
	switch {
	case string(b[257:263]) == "ustar\x00" && string(b[508:512]) == "tar\x00":
		return formatStar
	case string(b[257:263]) == "ustar\x00":
		return formatUSTAR
	case string(b[257:265]) == "ustar  \x00":
		return formatGNU
	}
	return formatV7
}

func (b block) isZero() bool {
	for i := 0; i < blockSize; i += 8 {
		if binary.LittleEndian.Uint64(b[i:]) != 0 {
			return false
		}
	}
	return true
}

// checksumOK compares the checksum field with the sum of all bytes, in which the field itself counts as spaces. Old
// writers summed signed bytes.
func (b block) checksumOK() bool {
	want, ok := parseNumber(b[148:156])
	if !ok {
		return false
	}
	return want == b.sum() || want == b.signedSum()
}

const fieldSpaces = 8 * ' '

func (b block) sum() int64 {
	const lanes = 0x00ff00ff00ff00ff
	var even, odd uint64 // four 16-bit sums each: at most 64 × 255
	for i := 0; i < blockSize; i += 8 {
		v := binary.LittleEndian.Uint64(b[i:])
		even += v & lanes
		odd += v >> 8 & lanes
	}
	var n int64
	for ; even != 0; even >>= 16 {
		n += int64(even & 0xffff)
	}
	for ; odd != 0; odd >>= 16 {
		n += int64(odd & 0xffff)
	}
	for _, c := range b[148:156] {
		n -= int64(c)
	}
	return n + fieldSpaces
}

func (b block) signedSum() int64 {
	n := int64(fieldSpaces)
	for i, c := range b[:blockSize] {
		if i < 148 || i >= 156 {
			n += int64(int8(c))
		}
	}
	return n
}

// prefix returns what stands before the name, without the slash.
func (b block) prefix() []byte {
	switch b.format() {
	case formatUSTAR:
		return cstring(b[345:500])
	case formatStar:
		return cstring(b[345:476])
	case formatGNU:
		// GNU has times here. Go before 1.8 wrote a prefix into such headers, and images of that age exist: when a time
		// cannot be one and the field is plain text, it is a prefix.
		if b[345] == 0 && b[357] == 0 {
			return nil
		}
		if _, ok := parseTime(b[345:357]); ok {
			if _, ok = parseTime(b[357:369]); ok {
				return nil
			}
		}
		if p := cstring(b[345:500]); isASCII(p) {
			return p
		}
	}
	return nil
}

func parseTime(b []byte) (int64, bool) {
	if b[0] == 0 {
		return 0, true
	}
	return parseNumber(b)
}

func isASCII(b []byte) bool {
	for _, c := range b {
		if c >= 0x80 {
			return false
		}
	}
	return true
}

func cstring(b []byte) []byte {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		return b[:i]
	}
	return b
}

// parseNumber reads an octal or base-256 field. Blank fields are 0.
func parseNumber(b []byte) (int64, bool) {
	if b[0]&0x80 != 0 {
		return parseBase256(b)
	}
	for len(b) > 0 && (b[0] == ' ' || b[0] == 0) {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == 0) {
		b = b[:len(b)-1]
	}
	b = cstring(b)
	if len(b) > 20 {
		return 0, false
	}
	var n int64
	for _, c := range b {
		if c < '0' || c > '7' {
			return 0, false
		}
		n = n<<3 | int64(c-'0')
	}
	return n, true
}

func parseBase256(b []byte) (int64, bool) {
	v := int64(b[0] & 0x7f)
	if b[0]&0x40 != 0 {
		v -= 0x80
	}
	for _, c := range b[1:] {
		if v > 1<<55-1 || v < -1<<55 {
			return 0, false
		}
		v = v<<8 | int64(c)
	}
	return v, true
}

// parseDecimal reads a decimal number with an optional sign, as pax and GNU sparse maps write them.
func parseDecimal(b []byte) (int64, bool) {
	neg := false
	if len(b) > 0 && (b[0] == '-' || b[0] == '+') {
		neg, b = b[0] == '-', b[1:]
	}
	if len(b) == 0 || len(b) > 32 {
		return 0, false
	}
	var n uint64
	for _, c := range b {
		if c < '0' || c > '9' || n > (1<<63)/10 {
			return 0, false
		}
		n = n*10 + uint64(c-'0')
	}
	if neg {
		return -int64(n), n <= 1<<63
	}
	return int64(n), n < 1<<63
}

// parsePaxTime reads seconds with an optional fraction; digits beyond nanoseconds are dropped. The result counts
// nanoseconds upwards: -0.5 is second -1, 500000000.
func parsePaxTime(b []byte) (sec int64, ns uint32, ok bool) {
	whole, frac, _ := bytes.Cut(b, []byte{'.'})
	sec, ok = parseDecimal(whole)
	if !ok {
		return 0, 0, false
	}
	for i := range frac {
		if frac[i] < '0' || frac[i] > '9' {
			return 0, 0, false
		}
	}
	for i := range 9 {
		ns *= 10
		if i < len(frac) {
			ns += uint32(frac[i] - '0')
		}
	}
	if ns != 0 && whole[0] == '-' {
		if sec == -1<<63 {
			return 0, 0, false
		}
		return sec - 1, 1e9 - ns, true
	}
	return sec, ns, true
}

package tarshell

import (
	"bytes"
	"io"
	"math"
	"strconv"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/plugins/overlaybd/internal/codecerr"
)

// Shell says where the payload is.
type Shell struct {
	Offset int64 // bytes from the start: HeaderSize or PlainSize
	Size   int64 // bytes
	Name   string
}

// Find looks at the headers of a layer of size bytes. ok is false, without an error, when the runtime would not take it for a
// tar; its payload is then the layer itself. Errors are ErrCorrupt, ErrTruncated, ErrUnsupported, or those of r.
func Find(r io.ReaderAt, size int64) (shell Shell, ok bool, err error) {
	if size < block {
		return Shell{}, false, nil
	}
	h := make(headerView, block)
	if err := format.ReadFull(r, h, 0, "header"); err != nil {
		return Shell{}, false, err
	}
	if !h.isTar() {
		return Shell{}, false, nil
	}
	shell, err = parse(r, size, h)
	return shell, err == nil, err
}

// parse reads on behind the first header.
func parse(r io.ReaderAt, size int64, h headerView) (Shell, error) {
	s := Shell{Offset: PlainSize, Size: -1}
	if t := h.typeflag(); t == 'x' || t == 'g' {
		n, ok := octal(h.size())
		if !ok {
			return Shell{}, format.Corrupt(124, "size of the pax records", strconv.Quote(string(h.size())), "octal digits")
		}
		if n <= 0 || n > block {
			return Shell{}, format.Fail(abi.ErrUnsupported, 124, "size of the pax records", codecerr.Dec(n), "1 to 512, or the payload is not at byte 1536")
		}
		if size < HeaderSize {
			return Shell{}, format.Truncated(size, "header", "1536 bytes")
		}
		both := make([]byte, 2*block)
		if err := format.ReadFull(r, both, block, "pax records and header"); err != nil {
			return Shell{}, err
		}
		if t == 'x' {
			var err error
			if s.Size, err = paxSize(both[:n]); err != nil {
				return Shell{}, err
			}
		}
		h, s.Offset = both[block:], HeaderSize
		if h.magic() != "ustar" || !h.sumOK() {
			return Shell{}, format.Corrupt(2*block, "header behind the pax records", "", "a tar header with its checksum")
		}
	}
	if t := h.typeflag(); t != '0' && t != 0 && t != '7' {
		return Shell{}, format.Fail(abi.ErrUnsupported, s.Offset-block+156, "typeflag", strconv.QuoteRune(rune(t)), "a file, at once or behind pax records")
	}
	s.Name = string(h.name())
	if s.Size <= 0 {
		n, ok := octal(h.size())
		if !ok {
			return Shell{}, format.Corrupt(s.Offset-block+124, "size", strconv.Quote(string(h.size())), "octal digits, or a pax record")
		}
		s.Size = n
	}
	if s.Size < 0 || s.Size > size-s.Offset {
		return Shell{}, format.Truncated(size, "payload", codecerr.Dec(s.Size)+" bytes from byte "+codecerr.Dec(s.Offset)+" on")
	}
	return s, nil
}

// paxSize returns the value of the record "size", -1 if there is none. b starts at byte 512 of the file.
func paxSize(b []byte) (int64, error) {
	size, at := int64(-1), int64(block)
	for len(b) > 0 {
		digits, _, ok := bytes.Cut(b, []byte(" "))
		n, err := strconv.ParseUint(string(digits), 10, 31)
		if !ok || err != nil || n > uint64(len(b)) || n < uint64(len(digits))+2 || b[n-1] != '\n' {
			return 0, format.Corrupt(at, "pax record", "", "\"<length> <key>=<value>\" and a newline")
		}
		key, value, ok := bytes.Cut(b[len(digits)+1:n-1], []byte("="))
		if !ok {
			return 0, format.Corrupt(at, "pax record", "", "a key and a value")
		}
		if string(key) == sizeRecord {
			v, err := strconv.ParseUint(string(value), 10, 64)
			if err != nil || v > math.MaxInt64 {
				return 0, format.Corrupt(at, "pax record size", strconv.Quote(string(value)), "a number of bytes")
			}
			size = int64(v)
		}
		b, at = b[n:], at+int64(n)
	}
	return size, nil
}

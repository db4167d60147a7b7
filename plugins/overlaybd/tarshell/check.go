package tarshell

import (
	"bytes"
	"io"
	"strconv"

	"github.com/convhost/convhost/plugins/overlaybd/internal/codecerr"
)

// Check reads a layer's shell and reports every violation. errs are rules that the runtime enforces; notes are deviations that
// it ignores, like a missing end of the archive. The payload is not read. A file that is no tar is an error here.
func Check(r io.ReaderAt, size int64) (errs, notes []error) {
	s, ok, err := Find(r, size)
	if err != nil {
		return []error{err}, nil
	}
	if !ok {
		return []error{format.Corrupt(0, "header", "", "\"ustar\", version \"00\" and the right checksum")}, nil
	}
	if s.Name != Name {
		notes = append(notes, format.Corrupt(s.Offset-block, "name", strconv.Quote(s.Name), strconv.Quote(Name)))
	}
	end := s.Offset + s.Size
	if want := int64(len(Trailer(s.Size))); size-end < want {
		return nil, append(notes, format.Truncated(size, "end of the archive", codecerr.Dec(want)+" zeros behind the payload"))
	}
	buf := make([]byte, 64<<10)
	for at := end; at < size; at += int64(len(buf)) {
		part := buf[:min(int64(len(buf)), size-at)]
		if err := format.ReadFull(r, part, at, "end of the archive"); err != nil {
			return []error{err}, notes
		}
		if k := bytes.IndexFunc(part, func(c rune) bool { return c != 0 }); k >= 0 {
			return nil, append(notes, format.Corrupt(at+int64(k), "end of the archive", "0x"+strconv.FormatUint(uint64(part[k]), 16), "zeros behind the payload"))
		}
	}
	return nil, notes
}

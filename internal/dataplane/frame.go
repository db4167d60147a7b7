package dataplane

import (
	"encoding/binary"

	"github.com/convhost/convhost/abi"
)

// decodeFrame decodes b into f. It differs from abi.Unmarshal in that f.Data may be a part of b, which the caller
// gives away: a megabyte is not copied once more.
func decodeFrame(b []byte, f *abi.DataFrame) error {
	start, data, end, ok := findData(b)
	if !ok || end != len(b) { // our own peers write the data last; nobody must
		return abi.Unmarshal(b, f)
	}
	if err := abi.Unmarshal(b[:start], f); err != nil {
		return err
	}
	f.Data = b[data:end:end]
	return nil
}

// findData finds the first field with the number and type of Data: where it starts, and its bytes.
func findData(b []byte) (start, data, end int, ok bool) {
	for i := 0; i < len(b); {
		key, n := binary.Uvarint(b[i:])
		if n <= 0 {
			return 0, 0, 0, false
		}
		start = i
		i += n
		v, vn := binary.Uvarint(b[i:])
		if vn <= 0 {
			return 0, 0, 0, false
		}
		switch i += vn; key & 7 {
		case 0:
		case 2:
			if v > uint64(len(b)-i) {
				return 0, 0, 0, false
			}
			if key == dataTag {
				return start, i, i + int(v), v > 0
			}
			i += int(v)
		default:
			return 0, 0, 0, false
		}
	}
	return 0, 0, 0, false
}

package graph

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/convhost/convhost/abi"
)

// maxJSONDepth bounds the nesting of objects and arrays inside one document. Real documents have less than 10.
const maxJSONDepth = 64

// checkJSON accepts exactly one JSON value that every reader understands in the same way: valid UTF-8, no unpaired
// surrogates, no duplicate keys in any object, nothing but white space behind it.
func checkJSON(raw []byte) error {
	s := jsonScanner{b: raw}
	i, err := s.value(s.space(0), 0)
	if err != nil {
		return err
	}
	if i = s.space(i); i != len(raw) {
		return s.bad(i, "trailing bytes", "the end of the document")
	}
	return nil
}

type jsonScanner struct{ b []byte }

func (s *jsonScanner) bad(i int, field, want string) error {
	class, got := abi.ErrCorrupt, ""
	if i >= len(s.b) {
		class, i, got = abi.ErrTruncated, len(s.b), "the end"
	} else {
		got = fmt.Sprintf("%q", s.b[i:min(i+1, len(s.b))])
	}
	return &abi.FormatError{Class: class, Format: "json", Field: field, Off: int64(i), Got: got, Want: want}
}

func (s *jsonScanner) space(i int) int {
	for i < len(s.b) && (s.b[i] == ' ' || s.b[i] == '\n' || s.b[i] == '\t' || s.b[i] == '\r') {
		i++
	}
	return i
}

// value returns the offset behind the value that starts at i.
func (s *jsonScanner) value(i, depth int) (int, error) {
	if depth > maxJSONDepth {
		return i, &abi.FormatError{Class: abi.ErrLimit, Format: "json", Field: "nesting depth", Off: int64(i),
			Want: fmt.Sprintf("at most %d", maxJSONDepth)}
	}
	if i >= len(s.b) {
		return i, s.bad(i, "value", "a value")
	}
	switch c := s.b[i]; {
	case c == '{':
		return s.object(i+1, depth)
	case c == '[':
		return s.array(i+1, depth)
	case c == '"':
		return s.str(i)
	case c == '-' || c >= '0' && c <= '9':
		return s.number(i)
	}
	for _, word := range []string{"null", "true", "false"} {
		if bytes.HasPrefix(s.b[i:], []byte(word)) {
			return i + len(word), nil
		}
	}
	return i, s.bad(i, "value", "a value")
}

func (s *jsonScanner) object(i, depth int) (int, error) {
	if i = s.space(i); i < len(s.b) && s.b[i] == '}' {
		return i + 1, nil
	}
	seen := map[string]struct{}{}
	for {
		start := s.space(i)
		end, err := s.key(start)
		if err != nil {
			return end, err
		}
		key := decodeKey(s.b[start:end])
		if _, dup := seen[key]; dup {
			return start, &abi.FormatError{Class: abi.ErrCorrupt, Format: "json", Field: "key", Off: int64(start),
				Got: fmt.Sprintf("%.64q for the second time", key), Want: "each key once"}
		}
		seen[key] = struct{}{}
		if i = s.space(end); i >= len(s.b) || s.b[i] != ':' {
			return i, s.bad(i, "object", "':'")
		}
		if i, err = s.value(s.space(i+1), depth+1); err != nil {
			return i, err
		}
		i = s.space(i)
		switch {
		case i < len(s.b) && s.b[i] == ',':
			i++
		case i < len(s.b) && s.b[i] == '}':
			return i + 1, nil
		default:
			return i, s.bad(i, "object", "',' or '}'")
		}
	}
}

func (s *jsonScanner) key(i int) (int, error) {
	if i >= len(s.b) || s.b[i] != '"' {
		return i, s.bad(i, "object", "a key")
	}
	return s.str(i)
}

func (s *jsonScanner) array(i, depth int) (int, error) {
	if i = s.space(i); i < len(s.b) && s.b[i] == ']' {
		return i + 1, nil
	}
	for {
		var err error
		if i, err = s.value(s.space(i), depth+1); err != nil {
			return i, err
		}
		i = s.space(i)
		switch {
		case i < len(s.b) && s.b[i] == ',':
			i++
		case i < len(s.b) && s.b[i] == ']':
			return i + 1, nil
		default:
			return i, s.bad(i, "array", "',' or ']'")
		}
	}
}

func (s *jsonScanner) str(i int) (int, error) {
	for i++; i < len(s.b); {
		switch c := s.b[i]; {
		case c == '"':
			return i + 1, nil
		case c == '\\':
			n, err := s.escape(i)
			if err != nil {
				return i, err
			}
			i += n
		case c < 0x20:
			return i, s.bad(i, "string", "an escaped control character")
		case c < utf8.RuneSelf:
			i++
		default:
			r, n := utf8.DecodeRune(s.b[i:])
			if r == utf8.RuneError && n == 1 {
				return i, s.bad(i, "string", "valid UTF-8")
			}
			i += n
		}
	}
	return i, s.bad(i, "string", "'\"'")
}

// escape returns the length of the escape sequence at i; a surrogate pair is one sequence.
func (s *jsonScanner) escape(i int) (int, error) {
	if i+1 >= len(s.b) {
		return 0, s.bad(i+1, "string", "an escape sequence")
	}
	if c := s.b[i+1]; c != 'u' {
		if strings.IndexByte(`"\/bfnrt`, c) < 0 {
			return 0, s.bad(i+1, "escape sequence", `one of " \ / b f n r t u`)
		}
		return 2, nil
	}
	r, ok := s.hex4(i + 2)
	if !ok {
		return 0, s.bad(i+2, "escape sequence", "four hexadecimal digits")
	}
	if r < 0xd800 || r > 0xdfff {
		return 6, nil
	}
	if r < 0xdc00 && i+8 <= len(s.b) && s.b[i+6] == '\\' && s.b[i+7] == 'u' {
		if low, ok := s.hex4(i + 8); ok && low >= 0xdc00 && low <= 0xdfff {
			return 12, nil
		}
	}
	return 0, s.bad(i, "escape sequence", "a pair of surrogates")
}

func (s *jsonScanner) hex4(i int) (r uint32, ok bool) {
	if i+4 > len(s.b) {
		return 0, false
	}
	for _, c := range s.b[i : i+4] {
		d := strings.IndexByte("0123456789abcdef", c|0x20)
		if d < 0 || c < '0' {
			return 0, false
		}
		r = r<<4 | uint32(d)
	}
	return r, true
}

func (s *jsonScanner) number(i int) (int, error) {
	if s.b[i] == '-' {
		i++
	}
	if i < len(s.b) && s.b[i] == '0' {
		i++
	} else if n := s.digits(i); n > 0 {
		i += n
	} else {
		return i, s.bad(i, "number", "a digit")
	}
	if i < len(s.b) && s.b[i] == '.' {
		n := s.digits(i + 1)
		if n == 0 {
			return i, s.bad(i+1, "number", "a digit")
		}
		i += 1 + n
	}
	if i < len(s.b) && (s.b[i] == 'e' || s.b[i] == 'E') {
		if i++; i < len(s.b) && (s.b[i] == '+' || s.b[i] == '-') {
			i++
		}
		n := s.digits(i)
		if n == 0 {
			return i, s.bad(i, "number", "a digit")
		}
		i += n
	}
	return i, nil
}

func (s *jsonScanner) digits(i int) (n int) {
	for i+n < len(s.b) && s.b[i+n] >= '0' && s.b[i+n] <= '9' {
		n++
	}
	return n
}

// decodeKey returns the text of a quoted string that the scanner accepted.
func decodeKey(quoted []byte) string {
	if bytes.IndexByte(quoted, '\\') < 0 {
		return string(quoted[1 : len(quoted)-1])
	}
	var s string
	_ = json.Unmarshal(quoted, &s) // cannot fail: the scanner accepted it
	return s
}

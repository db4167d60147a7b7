package abi

import (
	"encoding/binary"
	"maps"
	"slices"
)

// Message is one of the structs in messages.go. They encode to the protobuf messages of the same name in abi.proto;
// the code is written by hand because the protobuf runtime would add 4.5 MB to every wasm plugin.
type Message interface {
	fields(c *coder) // visits every field, in order of its number, for both directions
	unknown() *[]byte
}

// Unknown holds fields that a newer peer sent. They are kept and sent on.
type Unknown struct{ Raw []byte }

func (u *Unknown) unknown() *[]byte { return &u.Raw }

// Marshal encodes m. The same message always gives the same bytes.
func Marshal(m Message) []byte {
	c := &coder{}
	m.fields(c)
	return append(c.out, *m.unknown()...)
}

// Unmarshal decodes b into m, which should be zero. Fields it does not know are kept. The error is ErrPlugin: such
// bytes only ever come from the other side of the ABI.
func Unmarshal(b []byte, m Message) error {
	if len(b) > MaxControl {
		return Errorf(ErrLimit, "message of %d bytes is larger than the limit of %d", len(b), MaxControl)
	}
	c := &coder{decode: true}
	if err := c.parse(b); err != nil {
		return err
	}
	m.fields(c)
	if c.err != nil {
		return c.err
	}
	for _, f := range c.in {
		if !f.used {
			*m.unknown() = append(*m.unknown(), f.raw...)
		}
	}
	return nil
}

// Wire types of protobuf.
const (
	wireVarint  = 0
	wireFixed64 = 1
	wireBytes   = 2
	wireFixed32 = 5
)

type field struct {
	num  int
	typ  int
	n    uint64 // varint
	b    []byte // bytes
	raw  []byte // the whole field with its tag
	used bool
}

type coder struct {
	decode bool
	out    []byte
	in     []field
	err    error
}

func (c *coder) parse(b []byte) error {
	for len(b) > 0 {
		f := field{}
		key, kn := binary.Uvarint(b)
		if kn <= 0 || key>>3 == 0 || key>>3 > 1<<29-1 {
			return wireError("a field tag")
		}
		f.num, f.typ = int(key>>3), int(key&7)
		rest := b[kn:]
		n := 0
		switch f.typ {
		case wireVarint:
			if f.n, n = binary.Uvarint(rest); n <= 0 {
				return wireError("a varint")
			}
		case wireFixed64:
			n = 8
		case wireFixed32:
			n = 4
		case wireBytes:
			l, ln := binary.Uvarint(rest)
			if ln <= 0 || l > uint64(len(rest)-ln) {
				return wireError("a length")
			}
			n = ln + int(l)
			f.b = rest[ln:n]
		default:
			return wireError("a known wire type")
		}
		if n > len(rest) {
			return wireError("a whole field")
		}
		f.raw = b[:kn+n]
		b = rest[n:]
		c.in = append(c.in, f)
	}
	return nil
}

func wireError(want string) error {
	return Errorf(ErrPlugin, "message: bytes are not protobuf, want %s", want)
}

// each calls fn for every occurrence of field num with the wanted wire type.
func (c *coder) each(num, typ int, fn func(f *field)) {
	for i := range c.in {
		if f := &c.in[i]; f.num == num && f.typ == typ {
			f.used = true
			fn(f)
		}
	}
}

func (c *coder) tag(num, typ int) { c.out = binary.AppendUvarint(c.out, uint64(num)<<3|uint64(typ)) }

func (c *coder) raw(num int, b []byte) {
	c.tag(num, wireBytes)
	c.out = binary.AppendUvarint(c.out, uint64(len(b)))
	c.out = append(c.out, b...)
}

func number[T ~int32 | ~int | ~int64 | ~uint32 | ~uint64](c *coder, num int, p *T) {
	if c.decode {
		c.each(num, wireVarint, func(f *field) { *p = T(f.n) })
	} else if *p != 0 {
		c.tag(num, wireVarint)
		c.out = binary.AppendUvarint(c.out, uint64(int64(*p)))
	}
}

func (c *coder) boolean(num int, p *bool) {
	var n int
	if *p {
		n = 1
	}
	number(c, num, &n)
	*p = n != 0
}

func (c *coder) str(num int, p *string) {
	if c.decode {
		c.each(num, wireBytes, func(f *field) { *p = string(f.b) })
	} else if *p != "" {
		c.raw(num, []byte(*p))
	}
}

func (c *coder) bytes(num int, p *[]byte) {
	if c.decode {
		c.each(num, wireBytes, func(f *field) { *p = slices.Clone(f.b) })
	} else if len(*p) > 0 {
		c.raw(num, *p)
	}
}

func (c *coder) strs(num int, p *[]string) {
	if c.decode {
		c.each(num, wireBytes, func(f *field) { *p = append(*p, string(f.b)) })
		return
	}
	for _, s := range *p {
		c.raw(num, []byte(s))
	}
}

// numbers is a packed repeated field.
func numbers[T ~int32 | ~int64](c *coder, num int, p *[]T) {
	if c.decode {
		c.each(num, wireVarint, func(f *field) { *p = append(*p, T(f.n)) })
		c.each(num, wireBytes, func(f *field) {
			for b := f.b; len(b) > 0; {
				v, n := binary.Uvarint(b)
				if n <= 0 {
					c.err = wireError("a packed number")
					return
				}
				*p, b = append(*p, T(v)), b[n:]
			}
		})
		return
	}
	if len(*p) > 0 {
		var b []byte
		for _, v := range *p {
			b = binary.AppendUvarint(b, uint64(int64(v)))
		}
		c.raw(num, b)
	}
}

// dict is a map<string, string>, written in order of its keys.
func (c *coder) dict(num int, p *map[string]string) {
	if c.decode {
		c.each(num, wireBytes, func(f *field) {
			var e pair
			if err := Unmarshal(f.b, &e); err != nil {
				c.err = err
				return
			}
			if *p == nil {
				*p = map[string]string{}
			}
			(*p)[e.key] = e.value
		})
		return
	}
	for _, k := range slices.Sorted(maps.Keys(*p)) {
		c.raw(num, Marshal(&pair{key: k, value: (*p)[k]}))
	}
}

type pair struct {
	key, value string
	Unknown
}

func (p *pair) fields(c *coder) { c.str(1, &p.key); c.str(2, &p.value) }

// sub is a message field that is always there.
func (c *coder) sub(num int, m Message) {
	if c.decode {
		c.each(num, wireBytes, func(f *field) {
			if err := Unmarshal(f.b, m); err != nil {
				c.err = err
			}
		})
		return
	}
	if b := Marshal(m); len(b) > 0 {
		c.raw(num, b)
	}
}

// list is a repeated message field.
func list[T any, P interface {
	*T
	Message
}](c *coder, num int, p *[]T) {
	if c.decode {
		c.each(num, wireBytes, func(f *field) {
			*p = append(*p, *new(T))
			if err := Unmarshal(f.b, P(&(*p)[len(*p)-1])); err != nil {
				c.err = err
			}
		})
		return
	}
	for i := range *p {
		c.raw(num, Marshal(P(&(*p)[i])))
	}
}

package graph

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/convhost/convhost/abi"
)

// A container is a JSON object or array cut into its members, so that some can be replaced while every other byte
// stays as it is. It is made from text that checkJSON accepted.
//
//	head  item , item , item  tail        item = lead key value trail
type container struct {
	head, tail []byte // up to and with the opening bracket; from the closing bracket on
	items      []item
	object     bool
	changed    bool
}

type item struct {
	lead, trail []byte // white space; for a member of an object, lead reaches up to the value: white space, key, colon
	key         string // decoded; "" in an array
	value       []byte
}

// parseContainer cuts the value that raw holds; open is '{' or '['.
func parseContainer(raw []byte, open byte) (*container, error) {
	s := jsonScanner{b: raw}
	i := s.space(0)
	if i >= len(raw) || raw[i] != open {
		return nil, s.bad(i, "value", map[byte]string{'{': "an object", '[': "an array"}[open])
	}
	c := &container{head: raw[:i+1], object: open == '{'}
	i++
	if j := s.space(i); j < len(raw) && raw[j] == open+2 { // '{'+2 is '}', '['+2 is ']'
		c.tail = raw[i:]
		return c, nil
	}
	for {
		start := i
		it := item{}
		i = s.space(i)
		if c.object {
			end, err := s.key(i)
			if err != nil {
				return nil, err
			}
			it.key = decodeKey(raw[i:end])
			if i = s.space(end); i >= len(raw) || raw[i] != ':' {
				return nil, s.bad(i, "object", "':'")
			}
			i = s.space(i + 1)
		}
		end, err := s.value(i, 0)
		if err != nil {
			return nil, err
		}
		next := s.space(end)
		if next >= len(raw) {
			return nil, s.bad(next, "value", "a closing bracket")
		}
		it.lead, it.value, it.trail = raw[start:i], raw[i:end], raw[end:next]
		c.items = append(c.items, it)
		switch raw[next] {
		case ',':
			i = next + 1
		case open + 2:
			c.tail = raw[next:]
			return c, nil
		default:
			return nil, s.bad(next, "value", "',' or a closing bracket")
		}
	}
}

func (c *container) find(key string) int {
	return slices.IndexFunc(c.items, func(it item) bool { return it.key == key })
}

// get returns the text of a member's value, nil if there is none.
func (c *container) get(key string) []byte {
	if i := c.find(key); i >= 0 {
		return c.items[i].value
	}
	return nil
}

// set replaces a member's value in place, or adds the member at the end.
func (c *container) set(key string, value []byte) {
	if i := c.find(key); i >= 0 {
		c.setAt(i, value)
		return
	}
	k, _ := marshalJSON(key)
	lead := append(c.newLead(), k...)
	colon := ":"
	if len(c.items) > 0 && bytes.HasSuffix(c.items[0].lead, []byte(": ")) {
		colon = ": "
	}
	c.insert(len(c.items), item{lead: append(lead, colon...), key: key, value: value})
}

func (c *container) setAt(i int, value []byte) {
	if bytes.Equal(c.items[i].value, value) {
		return
	}
	c.items[i].value = value
	c.changed = true
}

func (c *container) insertValue(i int, value []byte) {
	c.insert(i, item{lead: c.newLead(), value: value})
}

// newLead returns the white space that stands before a member here.
func (c *container) newLead() []byte {
	if len(c.items) == 0 {
		return nil
	}
	last := c.items[len(c.items)-1].lead
	return slices.Clone(last[:(&jsonScanner{b: last}).space(0)])
}

func (c *container) insert(i int, it item) {
	if n := len(c.items); n > 0 && i == n { // the white space before the closing bracket stays there
		it.trail, c.items[n-1].trail = c.items[n-1].trail, nil
	}
	c.items = slices.Insert(c.items, i, it)
	c.changed = true
}

func (c *container) remove(key string) {
	if i := c.find(key); i >= 0 {
		c.removeAt(i)
	}
}

func (c *container) removeAt(i int) {
	if n := len(c.items); i == n-1 && i > 0 {
		c.items[i-1].trail = c.items[i].trail
	}
	c.items = slices.Delete(c.items, i, i+1)
	c.changed = true
}

// bytes returns the text; exactly the source text when nothing changed.
func (c *container) bytes() []byte {
	var b bytes.Buffer
	b.Write(c.head)
	for i, it := range c.items {
		if i > 0 {
			b.WriteByte(',')
		}
		b.Write(it.lead)
		b.Write(it.value)
		b.Write(it.trail)
	}
	b.Write(c.tail)
	return b.Bytes()
}

// parseDocument checks raw and cuts the object that it must be. known are the field names that matter: a key that
// differs from one of them only in case is refused, because some readers take it for that field.
func parseDocument(raw []byte, known ...string) (*container, error) {
	if err := checkJSON(raw); err != nil {
		return nil, err
	}
	return parseObject(raw, known...)
}

func parseObject(raw []byte, known ...string) (*container, error) {
	c, err := parseContainer(raw, '{')
	if err != nil {
		return nil, err
	}
	for _, it := range c.items {
		for _, k := range known {
			if it.key != k && strings.EqualFold(it.key, k) {
				return nil, abi.Errorf(abi.ErrCorrupt, "key %q differs from the field %q only in case", it.key, k)
			}
		}
	}
	return c, nil
}

// decode reads a member into v; absent and null leave v as it is.
func (c *container) decode(key string, v any) error {
	raw := c.get(key)
	if raw == nil {
		return nil
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return abi.Errorf(abi.ErrCorrupt, "field %q: %s", key, strings.TrimPrefix(err.Error(), "json: "))
	}
	return nil
}

// setJSON sets a member to the JSON form of v.
func (c *container) setJSON(key string, v any) error {
	raw, err := marshalJSON(v)
	if err != nil {
		return fmt.Errorf("field %q: %w", key, err)
	}
	if old := c.get(key); old != nil && sameString(old, v) {
		return nil
	}
	c.set(key, raw)
	return nil
}

// sameString tells whether old, a JSON string in whatever spelling, already says v.
func sameString(old []byte, v any) bool {
	s, ok := v.(string)
	return ok && len(old) > 1 && old[0] == '"' && decodeKey(old) == s
}

// marshalJSON writes v on one line, without escaping <, > and &.
func marshalJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, abi.Errorf(abi.ErrInternal, "encode %T: %w", v, err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

func isNull(raw []byte) bool { return raw == nil || string(raw) == "null" }

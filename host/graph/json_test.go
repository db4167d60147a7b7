package graph

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/convhost/convhost/abi"
)

// odd is a document with everything that a careless editor would change.
const odd = " {\n  \"z\" : 1.50e+2,\n  \"a\":[ 1 , {\"<&>\":\"\\u003c\\/\"} ],\n\t\"mediaType\" : \"old\", \"empty\":{ }, \"n\":null\n}\n"

func TestContainerKeepsBytes(t *testing.T) {
	for _, raw := range []string{odd, "{}", " { } ", `{"a":1}`, "[]", "[ ]", "[1, 2,\n3 ]"} {
		open := strings.TrimSpace(raw)[0]
		c, err := parseContainer([]byte(raw), open)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(c.bytes()); got != raw {
			t.Errorf("%q became %q", raw, got)
		}
	}
}

func TestContainerEdits(t *testing.T) {
	for _, tc := range []struct {
		name, in, want string
		edit           func(c *container)
	}{
		{"replace", odd, strings.Replace(odd, `"old"`, `"new"`, 1), func(c *container) { c.set("mediaType", []byte(`"new"`)) }},
		{"same string in other spelling", `{"a":"\u0078"}`, `{"a":"\u0078"}`, func(c *container) { _ = c.setJSON("a", "x") }},
		{"add", "{\n  \"a\": 1\n}", "{\n  \"a\": 1,\n  \"b\": 2\n}", func(c *container) { c.set("b", []byte("2")) }},
		{"add two", `{"a":1}`, `{"a":1,"b":2,"c":3}`, func(c *container) { c.set("b", []byte("2")); c.set("c", []byte("3")) }},
		{"add to empty", "{ }\n", "{\"b\":2 }\n", func(c *container) { c.set("b", []byte("2")) }},
		{"remove last", "{\n  \"a\": 1,\n  \"b\": 2\n}", "{\n  \"a\": 1\n}", func(c *container) { c.remove("b") }},
		{"remove first", `{"a":1, "b":2}`, `{ "b":2}`, func(c *container) { c.remove("a") }},
		{"remove only", `{"a":1}`, `{}`, func(c *container) { c.remove("a") }},
		{"remove absent", odd, odd, func(c *container) { c.remove("b") }},
		{"remove and add", `{"a":1}`, `{"b":2}`, func(c *container) { c.remove("a"); c.set("b", []byte("2")) }},
	} {
		c, err := parseContainer([]byte(tc.in), '{')
		if err != nil {
			t.Fatal(err)
		}
		tc.edit(c)
		if got := string(c.bytes()); got != tc.want || checkJSON([]byte(got)) != nil {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
}

// TestJSONTruncated cuts a document at every byte: never accepted, always truncated or corrupt.
func TestJSONTruncated(t *testing.T) {
	end := strings.LastIndexByte(odd, '}')
	for i := range end {
		if err := checkJSON([]byte(odd[:i])); err == nil || abi.ClassOf(err) != abi.ErrTruncated && abi.ClassOf(err) != abi.ErrCorrupt {
			t.Errorf("cut at %d: %v", i, err)
		}
	}
}

var jsonSeeds = []string{odd, "", "{", `{"a":1,"a":2}`, `{"a":1,"\u0061":2}`, `"\ud83d\ude00"`, `"\ud83d"`, "\"\xff\"", "01", "-", "1e", "1.",
	`[1,]`, `{"a"}`, "nul", "true false", `"\x"`, "\"\n\"", strings.Repeat("[", 100), `[[[]]]`, `{"a":{"b":[{"c":-0.1E-7}]}}`, "\v1", `"` + "\u2028" + `"`}

// FuzzCheckJSON: what is accepted, encoding/json accepts too; what encoding/json accepts is only refused for duplicate
// keys, surrogates, UTF-8 or depth.
func FuzzCheckJSON(f *testing.F) {
	for _, s := range jsonSeeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		err := checkJSON(raw)
		valid := json.Valid(raw)
		if err == nil && !valid {
			t.Fatalf("accepted %q", raw)
		}
		if err != nil && valid {
			msg := err.Error()
			for _, reason := range []string{"second time", "surrogates", "valid UTF-8", "nesting depth"} {
				if strings.Contains(msg, reason) {
					return
				}
			}
			t.Fatalf("refused %q: %v", raw, err)
		}
	})
}

// FuzzEdit: a document cut and put together is the same; after an edit it parses, has the edit, and every untouched
// member has its old bytes in the old order.
func FuzzEdit(f *testing.F) {
	for _, s := range jsonSeeds {
		f.Add([]byte(s), "mediaType", true)
		f.Add([]byte(s), "b", false)
	}
	f.Fuzz(func(t *testing.T, raw []byte, key string, remove bool) {
		c, err := parseDocument(raw)
		if err != nil {
			return
		}
		if got := c.bytes(); !bytes.Equal(got, raw) {
			t.Fatalf("%q became %q", raw, got)
		}
		key = strings.ToValidUTF8(key, "?")
		if remove {
			c.remove(key)
		} else if err := c.setJSON(key, "edited"); err != nil {
			t.Fatal(err)
		}
		after, err := parseDocument(c.bytes())
		if err != nil {
			t.Fatalf("%q: %v", c.bytes(), err)
		}
		if v := after.get(key); remove && v != nil || !remove && decodeKey(v) != "edited" {
			t.Fatalf("edit of %q came out as %q", key, v)
		}
		before, _ := parseDocument(raw)
		if got, want := others(after, key), others(before, key); got != want {
			t.Fatalf("other members are %q, were %q", got, want)
		}
	})
}

func others(c *container, key string) string {
	var b strings.Builder
	for _, it := range c.items {
		if it.key != key {
			b.WriteString(it.key + "=" + string(it.value) + ";")
		}
	}
	return b.String()
}

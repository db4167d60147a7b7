package gocode

import "testing"

func TestSupported(t *testing.T) {
	for version, want := range map[string]bool{
		"go1.24": true, "go1.25.3": true, "go1.26.8": true, "go1.23.9": false, "go1.99": false, "go2.26": false, "devel go1.26": false, "": false,
		"go1.26rc1": false, "go1.260": false,
	} {
		if got := Supported(version); got != want {
			t.Errorf("Supported(%q) = %v", version, got)
		}
	}
}

// decode splits code of instructions with at most one immediate of one byte.
func decode(code string) (src []byte, ops []Op) {
	src = []byte(code)
	for i := 0; i < len(src); {
		o := Op{Code: src[i], Start: int32(i), End: int32(i + 1)}
		switch o.Code {
		case opBlock, opLoop, opIf, opBr, opBrIf, opCall, opLocalGet, opLocalSet, opGlobalGet, opI32Const:
			o.N = uint32(src[i+1])
			o.End++
		}
		ops = append(ops, o)
		i = int(o.End)
	}
	return src, ops
}

// TestSettle finds the functions that always return 1, also by way of others and of themselves.
func TestSettle(t *testing.T) {
	functions := []struct {
		name, code string
		want       bool
	}{
		0:  {"unwinds", "\x41\x01\x0b", true},
		1:  {"returns 0", "\x41\x00\x0f\x0b", false},
		2:  {"returns 1", "\x41\x01\x0f\x00\x0b", true},
		3:  {"returns what 2 does", "\x41\x00\x10\x02\x0f\x00\x0b", true},
		4:  {"returns what 1 does", "\x41\x00\x10\x01\x0f\x00\x0b", false},
		5:  {"returns what 3 does, and reads the stack pointer before", "\x41\x00\x10\x03\x23\x00\x21\x01\x0f\x00\x0b", true},
		6:  {"returns what 7 does", "\x41\x00\x10\x07\x0f\x00\x0b", true},
		7:  {"returns what 6 does", "\x41\x00\x10\x06\x0f\x00\x0b", true},
		8:  {"returns what 7 or 4 does", "\x20\x00\x04\x40\x41\x00\x10\x07\x0f\x0b\x41\x00\x10\x04\x0f\x00\x0b", false},
		9:  {"branches out with a result", "\x41\x00\x0c\x00\x00\x0b", false},
		10: {"ends with 0", "\x41\x00\x0b", false},
		11: {"ends with a local", "\x20\x00\x0b", false},
		12: {"branches out of a block", "\x02\x40\x0c\x00\x0b\x41\x01\x0b", true},
		13: {"is empty", "", false},
	}
	m := NewModule(1000)
	for i, f := range functions {
		src, ops := decode(f.code)
		m.See(uint32(i), src, ops)
	}
	m.Settle()
	for i, f := range functions {
		if got := m.unwinds[uint32(i)]; got != f.want {
			t.Errorf("function %d, which %s: %v", i, f.name, got)
		}
	}
}

// TestOthersStay: functions of another shape, and all when the budget is used up, stay as they are.
func TestOthersStay(t *testing.T) {
	const head, tail = "\x23\x00\x21\x01\x02\x40\x03\x40\x02\x40\x02\x40\x20\x00\x0e\x01\x00\x01\x0b", "\x0b\x00\x0b\x41\x01\x0b"
	shaped := func(code string) ([]byte, []Op) {
		src, ops := decode(head[:len(head)-5])
		table := Op{Code: opBrTable, Start: int32(len(src)), End: int32(len(src) + 4)}
		ops = append(ops, table, Op{Code: opEnd, Start: table.End, End: table.End + 1})
		src = append(src, head[len(head)-5:]...)
		more, moreOps := decode(code + tail)
		for _, o := range moreOps {
			o.Start, o.End = o.Start+int32(len(src)), o.End+int32(len(src))
			ops = append(ops, o)
		}
		return append(src, more...), ops
	}
	for name, tt := range map[string]struct {
		code   string
		budget int
		want   bool
	}{
		"jump":                   {"\x41\x01\x21\x00\x0c\x01\x0b\x41\x00\x0f", 1000, true},
		"budget":                 {"\x41\x01\x21\x00\x0c\x01\x0b\x41\x00\x0f", 10, false},
		"jump without a target":  {"\x0c\x01\x0b\x41\x00\x0f", 1000, false},
		"branch to a block":      {"\x0c\x00\x0b\x41\x00\x0f", 1000, false},
		"conditional jump":       {"\x41\x01\x21\x00\x41\x00\x0d\x01\x0b\x41\x00\x0f", 1000, false},
		"if with an alternative": {"\x20\x00\x04\x40\x05\x0b\x0b\x41\x00\x0f", 1000, false},
	} {
		src, ops := shaped(tt.code)
		out, ok := NewModule(tt.budget).Straighten([]byte("kept"), src, ops, 2)
		if ok != tt.want || string(out[:4]) != "kept" || !ok && len(out) != 4 {
			t.Errorf("%s: %v, %x", name, ok, out)
		}
	}
	src, ops := decode("\x41\x00\x0b")
	if _, ok := NewModule(1000).Straighten(nil, src, ops, 1); ok {
		t.Error("a function without basic blocks was rewritten")
	}
}

package dataplane

import (
	"bytes"
	"reflect"
	"testing"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/internal/session"
)

func frames() []*abi.DataFrame {
	return []*abi.DataFrame{
		{},
		{Call: 1, Seq: 2, Kind: abi.DataOpen, Role: abi.RoleLayerStored, Size: -1, Descriptor: true},
		{Call: 1 << 60, Seq: 3, Kind: abi.DataWrite, Index: 5, Data: bytes.Repeat([]byte("x"), 5000)},
		{Failed: true, Error: abi.ErrorDetail{Class: abi.ErrIO, Message: "disk"}, Data: []byte{0}},
	}
}

// The codec's short cuts give the bytes and the values of abi.Marshal and abi.Unmarshal.
func TestCodecFrames(t *testing.T) {
	for _, f := range frames() {
		b, err := Codec.Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		if got := b.Materialize(); !bytes.Equal(got, abi.Marshal(f)) {
			t.Errorf("%+v encodes to %x", f, got)
		}
		var back abi.DataFrame
		if err := Codec.Unmarshal(b, &back); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(&back, f) {
			t.Errorf("read back %+v, want %+v", &back, f)
		}
	}
}

// Messages of go-plugin's services pass through the same codec.
func TestCodecFallsThrough(t *testing.T) {
	b, err := Codec.Marshal(wrapperspb.String("hello"))
	if err != nil {
		t.Fatal(err)
	}
	var s wrapperspb.StringValue
	if err := Codec.Unmarshal(b, &s); err != nil || s.Value != "hello" {
		t.Errorf("%q, %v", s.Value, err)
	}
	if Codec.Name() != "proto" {
		t.Errorf("name %q", Codec.Name())
	}
	if err := Codec.Unmarshal(mem.BufferSlice{mem.SliceBuffer{0xff}}, new(abi.CallRequest)); err == nil {
		t.Error("garbage was a request")
	}
}

// Every limit that a session knows reaches the plugin: a field that is forgotten comes back as zero.
func TestLimitsTravel(t *testing.T) {
	var l session.Limits
	n := int64(1)
	fill(reflect.ValueOf(&l).Elem(), &n)
	g := GrantsOf(&session.Config{Limits: l})
	var back abi.Grants
	if err := abi.Unmarshal(abi.Marshal(&g), &back); err != nil {
		t.Fatal(err)
	}
	if got := Limits(&back.Limits); got != l {
		t.Errorf("got %+v, want %+v", got, l)
	}
}

func fill(v reflect.Value, n *int64) {
	for i := range v.NumField() {
		switch f := v.Field(i); f.Kind() {
		case reflect.Struct:
			fill(f, n)
		case reflect.Uint64:
			*n++
			f.SetUint(uint64(*n))
		default:
			*n++
			f.SetInt(*n)
		}
	}
}

// Law: decodeFrame says what abi.Unmarshal says.
func FuzzDecodeFrame(f *testing.F) {
	for _, m := range frames() {
		f.Add(abi.Marshal(m))
	}
	f.Add(append(abi.Marshal(frames()[2]), abi.Marshal(frames()[2])...))
	f.Fuzz(func(t *testing.T, b []byte) {
		var want, got abi.DataFrame
		werr := abi.Unmarshal(b, &want)
		gerr := decodeFrame(bytes.Clone(b), &got)
		if abi.ClassOf(werr) != abi.ClassOf(gerr) {
			t.Fatalf("%v, want %v", gerr, werr)
		}
		if werr == nil && !reflect.DeepEqual(got, want) {
			t.Fatalf("%+v, want %+v", got, want)
		}
	})
}

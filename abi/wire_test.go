package abi

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"

	"github.com/bufbuild/protocompile"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
)

// messages lists every message once; the test below fails when abi.proto has one more.
func messages() []Message {
	return []Message{
		&Description{}, &OptionSpec{}, &Marker{}, &LayerInfo{}, &PartInfo{}, &ConvertRequest{}, &Part{},
		&ConvertResponse{}, &MergeLayer{}, &MergeRequest{}, &OutLayer{}, &MergeResponse{}, &UnpackRequest{},
		&UnpackResponse{}, &CheckRequest{}, &CheckResponse{}, &AttachRequest{}, &AttachResponse{},
		&DetachRequest{}, &DetachResponse{}, &ErrorDetail{}, &CallRequest{}, &CallResponse{},
		&DataFrame{}, &LayerGrant{}, &LimitGrant{}, &Grants{},
	}
}

func protoFile(t testing.TB) protoreflect.FileDescriptor {
	t.Helper()
	c := protocompile.Compiler{Resolver: &protocompile.SourceResolver{}}
	files, err := c.Compile(context.Background(), "abi.proto")
	if err != nil {
		t.Fatal(err)
	}
	return files[0]
}

// fill sets every field of v to something that is not zero.
func fill(r *rand.Rand, v reflect.Value, depth int) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).Name != "Unknown" {
				fill(r, v.Field(i), depth+1)
			}
		}
	case reflect.String:
		v.SetString(string(rune('a'+r.IntN(26))) + "ä\n")
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt(int64(r.Int32N(1<<30)) - 1<<29)
	case reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(r.Uint32N(1<<31) + 1))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Slice:
		n := 1 + r.IntN(3)
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			if v.Type().Elem().Kind() == reflect.Uint8 {
				v.Index(i).SetUint(uint64(1 + r.IntN(255)))
			} else {
				fill(r, v.Index(i), depth+1)
			}
		}
	case reflect.Map:
		v.Set(reflect.ValueOf(map[string]string{"z": "1", "a": "", "": "2"}))
	default:
		panic("fill: " + v.Kind().String())
	}
}

// The oracle is the protobuf runtime with abi.proto: it must read every field we write, know all of them, and write
// bytes that we read back to the same struct.
func TestMessagesAgreeWithProto(t *testing.T) {
	file := protoFile(t)
	if got, want := len(messages()), file.Messages().Len(); got != want {
		t.Fatalf("%d Go messages, %d in abi.proto", got, want)
	}
	for _, m := range messages() {
		name := reflect.TypeOf(m).Elem().Name()
		t.Run(name, func(t *testing.T) {
			desc := file.Messages().ByName(protoreflect.Name(name))
			if desc == nil {
				t.Fatalf("abi.proto has no message %s", name)
			}
			r := rand.New(rand.NewPCG(1, 2))
			for range 20 {
				in := reflect.New(reflect.TypeOf(m).Elem())
				fill(r, in.Elem(), 0)
				ours := Marshal(in.Interface().(Message))
				dyn := dynamicpb.NewMessage(desc)
				if err := proto.Unmarshal(ours, dyn); err != nil {
					t.Fatal(err)
				}
				checkKnown(t, dyn)
				theirs, err := proto.Marshal(dyn)
				if err != nil {
					t.Fatal(err)
				}
				out := reflect.New(reflect.TypeOf(m).Elem())
				if err := Unmarshal(theirs, out.Interface().(Message)); err != nil {
					t.Fatal(err)
				}
				if !reflect.DeepEqual(in.Interface(), out.Interface()) {
					t.Fatalf("read back\n%+v\nwrote\n%+v", out.Elem(), in.Elem())
				}
			}
		})
	}
}

func checkKnown(t *testing.T, m protoreflect.Message) {
	t.Helper()
	if len(m.GetUnknown()) > 0 {
		t.Fatalf("%s: abi.proto does not know %x", m.Descriptor().Name(), m.GetUnknown())
	}
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if !m.Has(f) {
			t.Errorf("%s.%s was not written", m.Descriptor().Name(), f.Name())
			continue
		}
		if f.IsMap() || f.Message() == nil {
			continue
		}
		if f.IsList() {
			for j := range m.Get(f).List().Len() {
				checkKnown(t, m.Get(f).List().Get(j).Message())
			}
		} else {
			checkKnown(t, m.Get(f).Message())
		}
	}
}

func TestUnknownFieldsAreKept(t *testing.T) {
	newer := append(Marshal(&Marker{MediaType: "a"}), Marshal(&LayerInfo{ChainID: "new"})...) // field 7 is unknown to Marker
	var m Marker
	if err := Unmarshal(newer, &m); err != nil {
		t.Fatal(err)
	}
	if got := Marshal(&m); string(got) != string(newer) {
		t.Errorf("got %x, want %x", got, newer)
	}
}

func TestErrorsCrossAsFields(t *testing.T) {
	f := &FormatError{Class: ErrTruncated, Format: "tar", Entry: "etc/x", Field: "header", Off: 512, Got: "3 bytes", Want: "512"}
	for _, in := range []error{f, fmt.Errorf("layer 3: %w", f), Errorf(ErrLimit, "too much"), WithLimit(Errorf(ErrLimit, "too much"), LimitOutput),
		fmt.Errorf("layer 3: %w", WithLimit(&FormatError{Class: ErrLimit, Format: "gzip", Field: "size", Off: 5}, LimitLayerBytes)), context.Canceled} {
		out := UnmarshalError(MarshalError(in))
		if out.Error() != in.Error() || ClassOf(out) != ClassOf(in) {
			t.Errorf("%v (%v) became %v (%v)", in, ClassOf(in), out, ClassOf(out))
		}
		if LimitOf(out) != LimitOf(in) {
			t.Errorf("%v: limit %q became %q", in, LimitOf(in), LimitOf(out))
		}
		var got *FormatError
		if errors.As(in, &f) && (!errors.As(out, &got) || *got != *f) {
			t.Errorf("%v lost its fields: %+v", in, got)
		}
	}
	if !errors.Is(Errorf(ErrDigest, "x"), ErrCorrupt) {
		t.Error("a digest mismatch is not corrupt data")
	}
}

// Law: what parses, encodes to something that parses to the same bytes; nothing panics.
func FuzzUnmarshal(f *testing.F) {
	r := rand.New(rand.NewPCG(3, 4))
	for i, m := range messages() {
		fill(r, reflect.ValueOf(m).Elem(), 0)
		f.Add(i, Marshal(m))
	}
	f.Fuzz(func(t *testing.T, i int, b []byte) {
		all := messages()
		m := all[uint(i)%uint(len(all))]
		if err := Unmarshal(b, m); err != nil {
			if ClassOf(err) != ErrPlugin && ClassOf(err) != ErrLimit {
				t.Fatalf("class %v", ClassOf(err))
			}
			return
		}
		once := Marshal(m)
		again := reflect.New(reflect.TypeOf(m).Elem()).Interface().(Message)
		if err := Unmarshal(once, again); err != nil {
			t.Fatal(err)
		}
		if got := Marshal(again); string(got) != string(once) {
			t.Fatalf("%x\n%x", once, got)
		}
	})
}

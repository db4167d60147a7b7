package nbd

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"reflect"
	"sync"
	"testing"

	"github.com/convhost/convhost/abi"
)

func TestNegotiation(t *testing.T) {
	e := Export{Disk: readOnly{&memory{b: make([]byte, 1<<20)}}, Name: "disk"}
	c := hello(handFixed | handNoZeroes)
	c.option(8, nil)                                            // structured replies: not here
	c.option(optList, nil).option(optList, []byte("x"))         // the second is wrong
	c.option(optInfo, goData("other"))                          // unknown
	c.option(optInfo, goData("disk")[:5])                       // too short
	c.option(optInfo, append(goData("disk"), 0))                // too long
	c.option(optInfo, []byte{255, 255, 255, 255, 0, 0})         // a name longer than all
	c.option(99, make([]byte, maxOption+1))                     // too big, but it is read
	c.option(optInfo, goData("disk")).option(optGo, goData("")) // then transmission
	c.request(cmdDisconnect, 0, 1, 0, 0)
	out, err := talk(e, c.b)
	if err != nil {
		t.Fatal(err)
	}
	h := &heard{t, out}
	if b := h.take(18); be.Uint64(b) != magicServer || be.Uint64(b[8:]) != magicOption || be.Uint16(b[16:]) != 3 {
		t.Errorf("greeting % x", b)
	}
	for _, want := range []struct {
		opt   uint32
		kinds []uint32
	}{
		{8, []uint32{repErrUnsup}}, {optList, []uint32{repServer, repAck}}, {optList, []uint32{repErrInvalid}},
		{optInfo, []uint32{repErrUnknown}}, {optInfo, []uint32{repErrInvalid}}, {optInfo, []uint32{repErrInvalid}}, {optInfo, []uint32{repErrInvalid}},
		{99, []uint32{repErrTooBig}}, {optInfo, []uint32{repInfo, repInfo, repAck}}, {optGo, []uint32{repInfo, repInfo, repAck}},
	} {
		kinds, data := h.answers(want.opt)
		if !reflect.DeepEqual(kinds, want.kinds) {
			t.Errorf("option %d is answered %x, want %x", want.opt, kinds, want.kinds)
		}
		if kinds[0] == repInfo && (be.Uint64(data[0][2:]) != 1<<20 || be.Uint16(data[0][10:]) != e.Flags()) {
			t.Errorf("export % x", data[0])
		}
	}
	if len(h.b) != 0 {
		t.Errorf("%d bytes too many", len(h.b))
	}
}

func TestExportName(t *testing.T) {
	e := Export{Disk: &memory{b: make([]byte, 512)}}
	for flags, want := range map[uint32]int{handFixed: 18 + 10 + 124, handFixed | handNoZeroes: 18 + 10} {
		out, err := talk(e, hello(flags).option(optExportName, nil).request(cmdDisconnect, 0, 1, 0, 0).b)
		if err != nil || len(out) != want || be.Uint64(out[18:]) != 512 {
			t.Errorf("flags %d: %d bytes, %v", flags, len(out), err)
		}
	}
	if _, err := talk(e, hello(handFixed).option(optExportName, []byte("other")).b); !errors.Is(err, abi.ErrNotFound) {
		t.Errorf("another name: %v", err)
	}
}

func transmitting(e Export, s *said) ([]byte, error) {
	r := &recorded{in: bytes.NewReader(s.b)}
	err := Transmit(r, e)
	return r.out.Bytes(), err
}

func TestRequests(t *testing.T) {
	m := &memory{b: bytes.Repeat([]byte("0123456789abcdef"), 64)}
	e := Export{Disk: m, Parallel: 1} // in order
	c := &said{}
	c.request(cmdWrite, 0, 1, 100, 3, 1, 2, 3).request(cmdRead, 0, 2, 99, 5).request(cmdZero, cmdFUA, 3, 101, 1).request(cmdRead, 0, 4, 100, 3)
	c.request(cmdFlush, 0, 5, 0, 0).request(cmdTrim, 0, 6, 0, 1024).request(cmdRead, 0, 7, 1023, 1)
	c.request(cmdRead, 0, 8, 1023, 2).request(cmdRead, 0, 9, 1<<63, 1).request(cmdWrite, 0, 10, 1024, 2, 7, 7).request(cmdZero, 0, 11, 1, 1<<32-1)
	c.request(9, 0, 12, 0, 0).request(cmdRead, 0, 13, 0, 0).request(cmdDisconnect, 0, 14, 0, 0).request(cmdRead, 0, 15, 0, 1)
	out, err := transmitting(e, c)
	if err != nil {
		t.Fatal(err)
	}
	h := &heard{t, out}
	errno, data := h.replies(13, map[uint64]int{2: 5, 4: 3, 7: 1})
	want := map[uint64]uint32{1: 0, 2: 0, 3: 0, 4: 0, 5: 0, 6: 0, 7: 0, 8: errInval, 9: errInval, 10: errNoSpc, 11: errInval, 12: errNotSup, 13: 0}
	if !reflect.DeepEqual(errno, want) {
		t.Errorf("errors %v, want %v", errno, want)
	}
	if !bytes.Equal(data[2], []byte{'3', 1, 2, 3, '7'}) || !bytes.Equal(data[4], []byte{1, 0, 3}) || data[7][0] != 0 {
		t.Errorf("data %v", data)
	}
	if m.synced != 2 || len(h.b) != 0 {
		t.Errorf("synced %d times, %d bytes too many", m.synced, len(h.b))
	}
}

func TestReadOnlyExport(t *testing.T) {
	m := &memory{b: make([]byte, 1024)}
	c := (&said{}).request(cmdWrite, 0, 1, 0, 2, 7, 7).request(cmdTrim, 0, 2, 0, 2).request(cmdZero, 0, 3, 0, 2).request(cmdFlush, 0, 4, 0, 0).request(cmdRead, 0, 5, 0, 2)
	out, err := transmitting(Export{Disk: readOnly{m}, Parallel: 1}, c) // ends without a disconnect
	if err != nil {
		t.Fatal(err)
	}
	errno, _ := (&heard{t, out}).replies(5, map[uint64]int{5: 2})
	if want := (map[uint64]uint32{1: errPerm, 2: errPerm, 3: errPerm, 4: 0, 5: 0}); !reflect.DeepEqual(errno, want) {
		t.Errorf("errors %v, want %v", errno, want)
	}
}

// A disk that fails is an error for one request.
func TestFailingDisk(t *testing.T) {
	m := &memory{b: make([]byte, 1024), fail: errors.New("the network is down")}
	c := (&said{}).request(cmdRead, 0, 1, 0, 2).request(cmdWrite, 0, 2, 0, 1, 7).request(cmdFlush, 0, 3, 0, 0)
	out, err := transmitting(Export{Disk: m, Parallel: 1}, c)
	if err != nil {
		t.Fatal(err)
	}
	errno, _ := (&heard{t, out}).replies(3, nil)
	if want := (map[uint64]uint32{1: errIO, 2: errIO, 3: errIO}); !reflect.DeepEqual(errno, want) {
		t.Errorf("errors %v, want %v", errno, want)
	}
}

func TestHostile(t *testing.T) {
	e := Export{Disk: &memory{b: make([]byte, 1<<16)}}
	good := (&said{}).request(cmdRead, 0, 1, 0, 2)
	for name, c := range map[string]struct {
		said  []byte
		class abi.Class
	}{
		"unknown flags":     {hello(8).b, abi.ErrCorrupt},
		"option's magic":    {append(hello(1).b, make([]byte, 16)...), abi.ErrCorrupt},
		"endless option":    {append(hello(1).b, "IHAVEOPT\x00\x00\x00\x07\xff\xff\xff\xff"...), abi.ErrLimit},
		"long name":         {hello(1).option(optExportName, make([]byte, maxOption+1)).b, abi.ErrLimit},
		"too many options":  {bytes.Join([][]byte{hello(1).b, bytes.Repeat((&said{}).option(77, nil).b, maxOptions+1)}, nil), abi.ErrLimit},
		"request's magic":   {hello(1).option(optGo, goData("")).request(0, 0, 0, 0, 0).b[:4+22+4], abi.ErrTruncated},
		"other magic":       {append(hello(1).option(optGo, goData("")).b, make([]byte, 28)...), abi.ErrCorrupt},
		"endless write":     {append(hello(1).option(optGo, goData("")).b, (&said{}).request(cmdWrite, 0, 1, 0, 1<<32-1).b...), abi.ErrLimit},
		"write cut":         {append(hello(1).option(optGo, goData("")).b, (&said{}).request(cmdWrite, 0, 1, 0, 9, 1, 2).b...), abi.ErrTruncated},
		"refused write cut": {append(hello(1).option(optGo, goData("")).b, (&said{}).request(cmdWrite, 0, 1, 1<<16, 9, 1, 2).b...), abi.ErrTruncated},
	} {
		if _, err := talk(e, c.said); !errors.Is(err, c.class) {
			t.Errorf("%s: %v, want %v", name, err, c.class)
		}
	}
	// Cut anywhere: an end between messages is no error, one inside is.
	whole := append(hello(3).option(optList, nil).option(optGo, goData("")).b, good.b...)
	edges := map[int]bool{0: true, 4: true, 4 + 16: true, 4 + 16 + 22: true, len(whole): true}
	for cut := range len(whole) + 1 {
		_, err := talk(e, whole[:cut])
		if edges[cut] != (err == nil) || err != nil && !errors.Is(err, abi.ErrTruncated) {
			t.Errorf("cut at %d: %v", cut, err)
		}
	}
}

// Many requests at a time over a real connection, against plain bytes.
func TestParallel(t *testing.T) {
	m := &memory{b: make([]byte, 1<<20)}
	rand.NewChaCha8([32]byte{1}).Read(m.b)
	client, server := net.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- Transmit(server, Export{Disk: m}) }()
	const n = 500
	offs := make([]uint64, n)
	for i := range offs {
		offs[i] = rand.Uint64N(1<<20 - 1000)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for i, off := range offs {
			client.Write((&said{}).request(cmdRead, 0, uint64(i), off, 1000).b)
		}
		client.Write((&said{}).request(cmdDisconnect, 0, n, 0, 0).b)
	})
	seen := map[uint64]bool{}
	for range n {
		b := make([]byte, replySize+1000)
		if err := must(client, b, "a reply"); err != nil {
			t.Fatal(err)
		}
		cookie := be.Uint64(b[8:])
		if seen[cookie] || !bytes.Equal(b[replySize:], m.b[offs[cookie]:offs[cookie]+1000]) {
			t.Fatalf("reply to %d is wrong", cookie)
		}
		seen[cookie] = true
	}
	wg.Wait()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// FuzzServe: whatever a client says, the server ends with nil or an error of a class, and what it says is bounded by what
// was asked.
func FuzzServe(f *testing.F) {
	f.Add(hello(3).option(optList, nil).option(optGo, goData("")).request(cmdRead, 0, 1, 0, 9).request(cmdWrite, 1, 2, 5, 2, 1, 1).b)
	f.Add(hello(1).option(optExportName, nil).request(cmdZero, 0, 1, 0, 9).request(cmdDisconnect, 0, 2, 0, 0).b)
	f.Add(hello(3).option(optInfo, goData("x")).option(optAbort, nil).b)
	f.Fuzz(func(t *testing.T, b []byte) {
		m := &memory{b: make([]byte, 4096)}
		for _, e := range []Export{{Disk: m, Name: "x"}, {Disk: readOnly{m}}} {
			out, err := talk(e, b)
			if err != nil && abi.ClassOf(err) == abi.ErrInternal {
				t.Errorf("%v has no class", err)
			}
			if most := 18 + (len(b)/16+1)*200 + (len(b)/requestSize+1)*(4096+replySize); len(out) > most {
				t.Errorf("%d bytes are answered with %d", len(b), len(out))
			}
			if fmt.Sprint(m.Size()) != "4096" {
				t.Error("the disk grew")
			}
		}
	})
}

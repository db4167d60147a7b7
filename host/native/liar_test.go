package native_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	plugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/native"
	"github.com/convhost/convhost/internal/dataplane"
	"github.com/convhost/convhost/internal/session"
)

// The liar is a plugin without the SDK: it speaks the protocol by hand and breaks it as it is told.
type liar struct {
	plugin.NetRPCUnsupportedPlugin
	ready chan dataplane.Conn
	conn  dataplane.Conn
	raw   *os.File
	seq   uint64
}

func serveLiar() {
	l := &liar{ready: make(chan dataplane.Conn, 1)}
	if os.Getenv(dataplane.EnvDataFD) != "" {
		l.raw = os.NewFile(3, "data")
		c, err := dataplane.NewSocket(os.NewFile(uintptr(dup(3)), "data"))
		if err != nil {
			panic(err)
		}
		l.ready <- c
	}
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig: dataplane.Handshake,
		Plugins:         plugin.PluginSet{dataplane.PluginName: l},
		GRPCServer: func(opts []grpc.ServerOption) *grpc.Server {
			return grpc.NewServer(append(opts, grpc.ForceServerCodecV2(dataplane.Codec), grpc.MaxSendMsgSize(1<<30))...)
		},
	})
	os.Exit(0)
}

func (l *liar) GRPCServer(_ *plugin.GRPCBroker, s *grpc.Server) error {
	dataplane.Register(s, l)
	return nil
}

func (l *liar) GRPCClient(context.Context, *plugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, nil
}

func (l *liar) Data(c dataplane.Conn) error {
	l.ready <- c
	select {}
}

func (l *liar) ask(id uint64, f *abi.DataFrame) (*abi.DataFrame, *os.File) {
	l.seq++
	f.Call, f.Seq = id, l.seq
	if err := l.conn.Send(f, nil); err != nil {
		os.Exit(9)
	}
	a, fd, err := l.conn.Recv()
	if err != nil {
		os.Exit(9)
	}
	return a, fd
}

func (l *liar) Call(_ context.Context, req *abi.CallRequest) (*abi.CallResponse, error) {
	if l.conn == nil {
		l.conn = <-l.ready
	}
	var r abi.ConvertRequest
	if err := abi.Unmarshal(req.Request, &r); err != nil {
		return nil, err
	}
	ok := new(abi.CallResponse)
	info := abi.StreamInfo{Size: 3, SHA256: sha256.Sum256([]byte("abc"))}
	switch r.Options["do"] {
	case "size":
		l.output(req.ID, "abcd", info, true)
	case "digest":
		l.output(req.ID, "abd", info, true)
	case "totals":
		l.ask(req.ID, &abi.DataFrame{Kind: abi.DataOpenSink})
		l.ask(req.ID, &abi.DataFrame{Kind: abi.DataCloseSink, Data: []byte("short")})
	case "keep":
		l.output(req.ID, "abc", info, false)
	case "truth":
		l.output(req.ID, "abc", info, true)
	case "twice":
		l.ask(req.ID, &abi.DataFrame{Kind: abi.DataOpenSink})
		if a, _ := l.ask(req.ID, &abi.DataFrame{Kind: abi.DataOpenSink}); a.Failed {
			return &abi.CallResponse{Failed: true, Error: a.Error}, nil
		}
	case "index":
		if a, _ := l.ask(req.ID, &abi.DataFrame{Kind: abi.DataOpenSink, Index: 1 << 30}); a.Failed {
			return &abi.CallResponse{Failed: true, Error: a.Error}, nil
		}
	case "other":
		a, _ := l.ask(req.ID+77, &abi.DataFrame{Kind: abi.DataOpen, Role: abi.RoleLayerStored})
		return &abi.CallResponse{Failed: a.Failed, Error: a.Error}, nil
	case "ungranted":
		a, _ := l.ask(req.ID, &abi.DataFrame{Kind: abi.DataReadAt, Role: abi.RoleDict, Size: 1})
		return &abi.CallResponse{Failed: a.Failed, Error: a.Error}, nil
	case "kind":
		a, _ := l.ask(req.ID, &abi.DataFrame{Kind: 99})
		return &abi.CallResponse{Failed: a.Failed, Error: a.Error}, nil
	case "descriptor":
		l.conn.Send(&abi.DataFrame{Call: req.ID}, os.Stdin)
		select {}
	case "garbage":
		l.raw.Write([]byte("\xff\xff\xff\xff garbage"))
		select {}
	case "huge":
		ok.Response = make([]byte, abi.MaxControl+1)
	case "outputs", "outputs, heedless":
		l.floodOutputs(req.ID, r.Options["do"] == "outputs")
	case "flood":
		for range 20_000 {
			l.conn.Send(&abi.DataFrame{Call: req.ID, Kind: abi.DataLog, Data: []byte("flood")}, nil)
		}
		l.ask(req.ID, &abi.DataFrame{Kind: abi.DataSync})
	}
	return ok, nil
}

// floodOutputs writes without end into two sinks; one that heeds stops when it is told.
func (l *liar) floodOutputs(id uint64, heeds bool) {
	var pipes []*os.File
	for i := range 2 {
		_, fd := l.ask(id, &abi.DataFrame{Kind: abi.DataOpenSink, Index: i})
		pipes = append(pipes, fd)
	}
	chunk := make([]byte, 64<<10)
	for i := range 1280 { // 80 MiB
		var err error
		if fd := pipes[i%2]; fd != nil {
			_, err = fd.Write(chunk)
		} else if a, _ := l.ask(id, &abi.DataFrame{Kind: abi.DataWrite, Index: i % 2, Data: chunk}); a.Failed {
			err = a.Error.Err()
		}
		if err != nil && heeds {
			return
		}
	}
}

// output writes s into sink 0 and says that it was info.
func (l *liar) output(id uint64, s string, info abi.StreamInfo, closePipe bool) {
	_, fd := l.ask(id, &abi.DataFrame{Kind: abi.DataOpenSink})
	if fd != nil {
		io.WriteString(fd, s)
		if closePipe {
			fd.Close()
		}
	} else {
		l.ask(id, &abi.DataFrame{Kind: abi.DataWrite, Data: []byte(s)})
	}
	l.ask(id, &abi.DataFrame{Kind: abi.DataCloseSink, Data: info.Append(nil)})
}

// Whatever the plugin answers, a lie about an output fails the operation.
func TestLies(t *testing.T) {
	for _, pl := range planes {
		t.Run(pl.name, func(t *testing.T) {
			frames := pl.edit != nil
			p := start(t, func(c *native.Config) {
				c.Env = []string{"TEST_MODE=liar"}
				if frames {
					pl.edit(c)
				}
			})
			for _, test := range []struct {
				do   string
				want abi.Class
				text string
			}{
				{"size", abi.ErrPlugin, "has 3 bytes with digest sha256:ba7816bf"},
				{"digest", abi.ErrPlugin, "but wrote 3 with sha256:a52d159f"},
				{"totals", abi.ErrPlugin, "left output 0 open"},
				{"keep", abi.ErrPlugin, "keeps its pipe open"},
				{"truth", 0, ""},
				{"twice", abi.ErrPlugin, "opened twice"},
				{"index", abi.ErrLimit, "output 1073741824"},
				{"other", abi.ErrPlugin, "does not run"},
				{"ungranted", abi.ErrDenied, "not granted"},
				{"kind", abi.ErrUnsupported, "unknown kind 99"},
				{"flood", 0, ""},
				{"descriptor", abi.ErrPlugin, "sent a descriptor"},
				{"garbage", abi.ErrPlugin, "frame of 4294967295 bytes"},
				{"huge", abi.ErrPlugin, "larger than the limit of 67108864"},
			} {
				if frames && (test.do == "keep" || test.do == "descriptor" || test.do == "garbage") {
					continue // needs a socket
				}
				var out memorySinks
				_, err := do(t.Context(), p, test.do, session.Config{OpenSink: out.open})
				if test.want == 0 {
					if err != nil {
						t.Errorf("%s: %v", test.do, err)
					}
					continue
				}
				if !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.text) {
					t.Errorf("%s: %v (%v), want %v with %q", test.do, err, abi.ClassOf(err), test.want, test.text)
				}
				if len(out.closed) > 0 {
					t.Errorf("%s: the output was completed", test.do)
				}
			}
		})
	}
}

// TestOutputFlood: the host counts what arrives, for a plugin that does not, over all outputs; it stops soon after the
// limit, and takes what the layer, its tar, and other inputs allow.
func TestOutputFlood(t *testing.T) {
	zeros := gzipOf(t, make([]byte, 10<<20)) // 10 KiB stored
	small := session.Limits{OutputBase: 4 << 20, OutputFactor: 3}
	unread := []session.Part{{At: bytes.NewReader(nil), Size: 3 << 20}}
	for _, pl := range planes {
		t.Run(pl.name, func(t *testing.T) {
			p := start(t, func(c *native.Config) {
				c.Env = []string{"TEST_MODE=liar"}
				if pl.edit != nil {
					pl.edit(c)
				}
			})
			for _, test := range []struct {
				name, do string
				grants   session.Config
				most     int64 // bytes that may arrive; 0: all of them, and another error
			}{
				{"defaults", "outputs", session.Config{}, 64 << 20},
				{"nothing heard", "outputs, heedless", session.Config{Limits: small}, 4 << 20},
				{"a part", "outputs", session.Config{Limits: small, Parts: unread}, 13 << 20},
				{"a parent and a dictionary", "outputs", session.Config{Limits: small, Parents: unread, Dicts: unread}, 22 << 20},
				{"random bytes", "outputs", session.Config{Limits: small, Layer: storedOf(make([]byte, 1<<20))}, 7 << 20},
				{"a tar of zeros", "outputs", session.Config{Limits: small, Layer: storedOf(zeros)}, 34 << 20},
				{"a tar of zeros, enough", "outputs", session.Config{Limits: session.Limits{OutputBase: 1 << 20, OutputFactor: 8}, Layer: storedOf(zeros)}, 0},
				{"a broken layer", "outputs", session.Config{Limits: small, Layer: storedOf(zeros[:1000])}, 8 << 20},
			} {
				var out memorySinks
				test.grants.OpenSink = out.open
				_, err := do(t.Context(), p, test.do, test.grants)
				got := int64(out.bufs[0].Len() + out.bufs[1].Len())
				if test.most == 0 {
					if !errors.Is(err, abi.ErrPlugin) || errors.Is(err, abi.ErrLimit) || got < 70<<20 {
						t.Errorf("%s: %v after %d bytes", test.name, err, got)
					}
					continue
				}
				if !errors.Is(err, abi.ErrLimit) || got > test.most || got < test.most-4<<20 || len(out.closed) > 0 {
					t.Errorf("%s: %v after %d bytes, want at most %d", test.name, err, got, test.most)
				}
			}
		})
	}
}

func gzipOf(t *testing.T, b []byte) []byte {
	t.Helper()
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return z.Bytes()
}

func storedOf(b []byte) *session.Layer {
	return &session.Layer{Open: func(context.Context) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }, At: bytes.NewReader(b), Size: int64(len(b))}
}

package native_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/sdk"
)

// The test binary is the test plugin: started by a host, it serves.
func TestMain(m *testing.M) {
	if os.Getenv("TEST_HOST") != "" {
		beHost()
	}
	if os.Getenv("CONVHOST_PLUGIN") != "" {
		switch os.Getenv("TEST_MODE") {
		case "major":
			fmt.Println("1|7|unix|/nowhere|grpc|")
			time.Sleep(time.Minute)
		case "silent":
			time.Sleep(time.Minute)
		case "words":
			fmt.Fprintln(os.Stderr, "cannot find my config")
			os.Exit(3)
		case "liar":
			serveLiar()
		}
		sdk.Main(testPlugin{})
	}
	goleak.VerifyTestMain(m)
}

// testPlugin does what Options["do"] says.
type testPlugin struct{}

func (testPlugin) Describe() abi.Description {
	return abi.Description{Name: "test", Version: "1", Summary: "does as it is told"}
}

func (testPlugin) ConvertLayer(ctx context.Context, l *sdk.Layer) (*abi.ConvertResponse, error) {
	switch what := l.Options["do"]; what {
	case "entries":
		return entries(l)
	case "copy":
		return copyLayer(l)
	case "sinks":
		return sinks(l)
	case "parts":
		return parts(l)
	case "drain":
		return drain(l)
	case "ok":
		return &abi.ConvertResponse{State: []byte(fmt.Sprint(os.Getpid()))}, nil
	case "env":
		return &abi.ConvertResponse{State: []byte(strings.Join(os.Environ(), "\n"))}, nil
	case "log":
		l.Log(abi.LogWarn, "from the session")
		fmt.Fprintln(os.Stderr, `{"@level":"error","@message":"from hclog","@timestamp":"2020-01-02T03:04:05Z","n":7}`)
		fmt.Fprintln(os.Stderr, "plain words")
		l.Progress(1, 4)
		l.Progress(4, 4)
		return &abi.ConvertResponse{}, nil
	case "crash":
		panic("I am a bad plugin")
	case "exit":
		fmt.Fprintln(os.Stderr, "leaving")
		os.Exit(0)
	case "hang":
		select {}
	case "obey":
		<-ctx.Done()
		return nil, ctx.Err()
	case "fail":
		return nil, &abi.FormatError{Class: abi.ErrCorrupt, Format: "test", Field: "word", Off: 3, Got: "no", Want: "yes"}
	case "open":
		_, err := l.OpenSink(0, 0, 0)
		return &abi.ConvertResponse{}, err
	case "foreign":
		_, err := l.Open(abi.RolePart, 9)
		return nil, err
	}
	return nil, abi.Errorf(abi.ErrUnsupported, "do what?")
}

// entries lists the layer into sink 0 and its bodies through a plan into sink 1.
func entries(l *sdk.Layer) (*abi.ConvertResponse, error) {
	list, err := sdk.OpenSink(l, 0)
	if err != nil {
		return nil, err
	}
	blob, err := sdk.OpenSink(l, 1)
	if err != nil {
		return nil, err
	}
	plan, err := l.NewPlan(&abi.PlanSpec{ChunkSize: 64 << 10, Digest: abi.DigestSHA256, Codec: abi.CodecZstd, Dedup: abi.DedupPlan, Sink: blob.Handle})
	if err != nil {
		return nil, err
	}
	in, err := sdk.OpenStream(l, abi.RoleLayerEntries)
	if err != nil {
		return nil, err
	}
	for e, err := range sdk.Entries(l, in.Handle, plan) {
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(list, "%s %d\n", e.Path, e.Size)
	}
	buf := make([]byte, 100*abi.CompletionSize)
	err = sdk.Completions(l, buf, true, func(c *abi.Completion) error {
		_, err := fmt.Fprintf(list, "%d %x\n", c.Tag, c.Digest)
		return err
	})
	if err != nil {
		return nil, err
	}
	if _, err := l.ClosePlan(plan); err != nil {
		return nil, err
	}
	resp := new(abi.ConvertResponse)
	for i, s := range []*sdk.Sink{list, blob} {
		info, err := s.Close()
		if err != nil {
			return nil, err
		}
		resp.Parts = append(resp.Parts, abi.Part{Sink: i, Size: info.Size, Digest: fmt.Sprintf("sha256:%x", info.SHA256)})
	}
	return resp, nil
}

// copyLayer copies the stored layer into sink 0.
func copyLayer(l *sdk.Layer) (*abi.ConvertResponse, error) {
	in, err := sdk.OpenStream(l, abi.RoleLayerStored)
	if err != nil {
		return nil, err
	}
	out, err := sdk.OpenSink(l, 0)
	if err != nil {
		return nil, err
	}
	if _, err := io.CopyBuffer(struct{ io.Writer }{out}, struct{ io.Reader }{in}, make([]byte, 256<<10)); err != nil {
		return nil, fmt.Errorf("copy: %w", err)
	}
	info, err := out.Close()
	return &abi.ConvertResponse{Parts: []abi.Part{{Size: info.Size}}}, err
}

// drain reads the stored layer.
func drain(l *sdk.Layer) (*abi.ConvertResponse, error) {
	in, err := sdk.OpenStream(l, abi.RoleLayerStored)
	if err != nil {
		return nil, err
	}
	buf := make([]byte, 1<<20)
	for {
		if _, err := in.Read(buf); err == io.EOF {
			return &abi.ConvertResponse{}, nil
		} else if err != nil {
			return nil, err
		}
	}
}

// sinks writes five outputs, interleaved, and drops nothing.
func sinks(l *sdk.Layer) (*abi.ConvertResponse, error) {
	var out []*sdk.Sink
	for i := range 5 {
		s, err := sdk.OpenSink(l, i)
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	for round := range 300 {
		for i, s := range out {
			if _, err := s.Write(bytes.Repeat([]byte{byte(round), byte(i)}, 1000*i)); err != nil {
				return nil, err
			}
		}
	}
	for _, s := range out {
		if _, err := s.Close(); err != nil {
			return nil, err
		}
	}
	return &abi.ConvertResponse{}, nil
}

// parts digests part 0 and 1 and the layer's last bytes, backwards.
func parts(l *sdk.Layer) (*abi.ConvertResponse, error) {
	sum := sha256.New()
	for i := range 2 {
		b, err := sdk.OpenBlob(l, abi.RoleParent, i)
		if err != nil {
			return nil, err
		}
		buf := make([]byte, 700_001)
		for off := b.Size(); off > 0; {
			n := min(off, int64(len(buf)))
			off -= n
			if _, err := b.ReadAt(buf[:n], off); err != nil && !errors.Is(err, io.EOF) {
				return nil, err
			}
			sum.Write(buf[:n])
		}
	}
	return &abi.ConvertResponse{State: sum.Sum(nil)}, nil
}

package native_test

import (
	"bytes"
	"context"
	"io"
	"os"
	"testing"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/native"
	"github.com/convhost/convhost/internal/session"
)

// From nothing to the answer of the first call, with the executable copied, hashed and sealed.
func BenchmarkStartToFirstCall(b *testing.B) {
	exe, _ := os.Executable()
	for b.Loop() {
		p, err := native.Start(b.Context(), native.Config{Path: exe, TempDir: b.TempDir()})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := p.Run(b.Context(), abi.OpDescribe, nil, session.Config{}); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		p.Close()
		b.StartTimer()
	}
}

func BenchmarkCall(b *testing.B) {
	p := start(b, nil)
	for b.Loop() {
		if _, err := p.Run(b.Context(), abi.OpDescribe, nil, session.Config{}); err != nil {
			b.Fatal(err)
		}
	}
}

// 256 MiB into the plugin, which reads them in pieces of 1 MiB; no digest is known.
func BenchmarkLayer(b *testing.B) {
	const size = 256 << 20
	path := b.TempDir() + "/layer"
	if err := os.WriteFile(path, bytes.Repeat([]byte("some content here"), size/17+1)[:size], 0o600); err != nil {
		b.Fatal(err)
	}
	open := func(context.Context) (io.ReadCloser, error) { return os.Open(path) }
	stream := func(context.Context) (io.ReadCloser, error) {
		f, err := os.Open(path)
		return struct{ io.ReadCloser }{f}, err
	}
	for _, way := range []struct {
		name string
		edit func(*native.Config)
		open func(context.Context) (io.ReadCloser, error)
	}{{"file", nil, open}, {"pipe", nil, stream}, {"frames", planes[1].edit, stream}} {
		b.Run(way.name, func(b *testing.B) {
			p := start(b, way.edit)
			b.SetBytes(size)
			for b.Loop() {
				if _, err := do(b.Context(), p, "drain", session.Config{Layer: &session.Layer{Open: way.open, Size: -1}}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// 256 MiB in and out again.
func BenchmarkOutput(b *testing.B) {
	const size = 256 << 20
	path := b.TempDir() + "/layer"
	if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
		b.Fatal(err)
	}
	open := func(context.Context) (io.ReadCloser, error) { return os.Open(path) }
	for _, pl := range planes {
		b.Run(pl.name, func(b *testing.B) {
			p := start(b, pl.edit)
			b.SetBytes(size)
			for b.Loop() {
				g := session.Config{Layer: &session.Layer{Open: open, Size: -1}, OpenSink: func(int) (session.Sink, error) { return discard{}, nil }}
				if _, err := do(b.Context(), p, "copy", g); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) Close(abi.StreamInfo) error  { return nil }
func (discard) Abort()                      {}

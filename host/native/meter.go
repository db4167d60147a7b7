package native

import (
	"cmp"
	"io"
	"math"
	"sync"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/internal/layer/inflate"
	"github.com/convhost/convhost/internal/session"
)

// meter bounds what a plugin writes in one operation, whatever it says of what it reads: OutputBase bytes, and OutputFactor
// for each byte that it was given. It is the bound that a session in the plugin holds itself to, but for inputs that a
// plugin has and does not read: the host cannot see that, and counts them.
//
// Of the layer the larger form counts, stored or tar. How long the tar is nobody knows before it is decompressed; the
// meter does that itself, as far as needed, and only for a plugin that writes more than the stored bytes allow.
type meter struct {
	mu      sync.Mutex
	base    int64
	factor  int64
	parts   int64 // bytes of inputs with random access
	stored  int64 // bytes of the layer as stored
	tar     int64 // bytes of its tar, as far as it was measured
	written int64

	open func() (io.ReadCloser, error) // decompresses the layer; nil: cannot, or it is measured
	r    io.ReadCloser
	buf  []byte
}

func (c *call) newMeter() *meter {
	def := session.DefaultLimits()
	m := &meter{base: c.grants.Limits.OutputBase, factor: c.grants.Limits.OutputFactor}
	if m.base == 0 {
		m.base = def.OutputBase
	}
	if m.factor == 0 {
		m.factor = def.OutputFactor
	}
	for _, list := range [][]session.Part{c.grants.Parts, c.grants.Parents, c.grants.Dicts} {
		for _, p := range list {
			m.parts += min(p.Size, math.MaxInt64-m.parts)
		}
	}
	l := c.grants.Layer
	if l == nil {
		return m
	}
	size := l.Size
	if size < 0 {
		size = math.MaxInt64 / 2 // its end is not known, nor whether it has one
	}
	m.stored = size
	if l.At == nil { // cannot be read twice
		m.tar = cmp.Or(c.grants.Limits.Inflate.Raw, 1<<40) // as inflate does
		return m
	}
	if l.Size >= 0 {
		m.open = func() (io.ReadCloser, error) {
			return inflate.Open(c.ctx, io.NewSectionReader(l.At, 0, size), inflate.Options{MediaType: l.MediaType, Limits: c.grants.Limits.Inflate})
		}
	}
	return m
}

// take counts n bytes of output. ErrLimit if they are too many.
func (m *meter) take(n int) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.written += int64(n)
	over := m.written - m.base
	if over <= 0 {
		return nil
	}
	need := (over-1)/m.factor + 1 // bytes of input that allow it
	for m.input() < need {
		if !m.measure() {
			return abi.WithLimit(abi.Errorf(abi.ErrLimit, "plugin wrote %d bytes and was given %d: more than %d and %d for each byte given",
				m.written, m.input(), m.base, m.factor), abi.LimitOutput)
		}
	}
	return nil
}

func (m *meter) input() int64 {
	layer := max(m.stored, m.tar)
	return m.parts + min(layer, math.MaxInt64-m.parts)
}

// measure decompresses a little more of the layer; false if there is no more. What is wrong with the layer is for the
// plugin to say: it counts as far as it can be read.
func (m *meter) measure() bool {
	if m.open == nil {
		return false
	}
	if m.r == nil {
		r, err := m.open()
		if err != nil {
			m.open = nil
			return false
		}
		m.r, m.buf = r, make([]byte, 256<<10)
	}
	n, err := m.r.Read(m.buf)
	m.tar += int64(n)
	if err != nil {
		m.r.Close()
		m.open, m.r, m.buf = nil, nil, nil
	}
	return n > 0 || err == nil
}

// close frees what measuring took. It may be called again.
func (m *meter) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.r != nil {
		m.r.Close()
	}
	m.open, m.r, m.buf = nil, nil, nil
}

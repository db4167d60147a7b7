package native

import (
	"context"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/convhost/convhost/abi"
)

// client is the host as one operation reaches it.
type client struct {
	m   *mux
	id  uint64
	ctx context.Context

	mu       sync.Mutex
	files    []*os.File // of random streams, closed at the end
	done     int64      // progress that was not sent yet
	total    int64
	read     int64
	dirty    bool
	lastSent time.Time
}

// interval is the shortest time between two reports of progress.
const interval = 50 * time.Millisecond

func (cl *client) request(f *abi.DataFrame) (*abi.DataFrame, *os.File, error) {
	f.Call = cl.id
	return cl.m.request(f)
}

// ask is request for answers without a descriptor.
func (cl *client) ask(f *abi.DataFrame) (*abi.DataFrame, error) {
	a, fd, err := cl.request(f)
	if fd != nil {
		fd.Close()
	}
	return a, err
}

// sync sends what was held back, waits until the host has seen all frames of this call, and ends its files.
func (cl *client) sync() {
	cl.mu.Lock()
	cl.flush()
	files := cl.files
	cl.files = nil
	cl.mu.Unlock()
	for _, f := range files {
		f.Close()
	}
	_, _ = cl.ask(&abi.DataFrame{Kind: abi.DataSync})
}

// ready tells the host that the image is attached.
func (cl *client) ready(resp *abi.AttachResponse) error {
	_, err := cl.ask(&abi.DataFrame{Kind: abi.DataReady, Data: abi.Marshal(resp)})
	return err
}

func (cl *client) progress(done, total int64) {
	cl.mu.Lock()
	defer cl.mu.Unlock()
	cl.done, cl.total, cl.dirty = done, total, true
	cl.maybeFlush()
}

// consumed is called by the session from the goroutine that reads the layer.
func (cl *client) consumed(n int) {
	cl.mu.Lock()
	defer cl.mu.Unlock()
	cl.read += int64(n)
	cl.maybeFlush()
}

func (cl *client) maybeFlush() {
	if now := time.Now(); now.Sub(cl.lastSent) >= interval {
		cl.lastSent = now
		cl.flush()
	}
}

func (cl *client) flush() {
	if cl.dirty {
		cl.dirty = false
		cl.m.tell(&abi.DataFrame{Call: cl.id, Kind: abi.DataProgress, Offset: cl.done, Size: cl.total})
	}
	if cl.read > 0 {
		cl.m.tell(&abi.DataFrame{Call: cl.id, Kind: abi.DataConsumed, Size: cl.read})
		cl.read = 0
	}
}

func (cl *client) logger() *slog.Logger { return slog.New(&logHandler{cl: cl}) }

// logHandler sends records to the host as text.
type logHandler struct {
	cl     *client
	suffix string
	group  string
}

// maxLogLine is where a message is cut.
const maxLogLine = 16 << 10

// Enabled leaves the choice to the host.
func (h *logHandler) Enabled(context.Context, slog.Level) bool { return true }

// Handle sends one record.
func (h *logHandler) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	b.WriteString(r.Message)
	b.WriteString(h.suffix)
	r.Attrs(func(a slog.Attr) bool {
		b.WriteString(h.text(a))
		return true
	})
	msg := b.String()
	if len(msg) > maxLogLine {
		msg = msg[:maxLogLine]
	}
	h.cl.m.tell(&abi.DataFrame{Call: h.cl.id, Kind: abi.DataLog, Size: int64(r.Level), Data: []byte(msg)})
	return nil
}

// WithAttrs implements slog.Handler.
func (h *logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := *h
	for _, a := range attrs {
		c.suffix += h.text(a)
	}
	return &c
}

// WithGroup implements slog.Handler.
func (h *logHandler) WithGroup(name string) slog.Handler {
	c := *h
	c.group += name + "."
	return &c
}

func (h *logHandler) text(a slog.Attr) string { return " " + h.group + a.Key + "=" + a.Value.String() }

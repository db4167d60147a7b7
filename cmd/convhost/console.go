package main

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/convhost/convhost/host"
)

// console is what a command says while it works: progress, warnings and the log, on standard error.
type console struct {
	mu       sync.Mutex
	app      *app
	mode     string
	bars     *bars // for progressBar, while they are shown
	started  map[layerKey]time.Time
	lines    io.Writer
	finished bool
}

// layerKey tells layers of several targets apart.
type layerKey struct {
	format, dest string
	digest       digest.Digest
}

func newConsole(a *app) *console {
	c := &console{app: a, mode: a.set.progress, started: map[layerKey]time.Time{}, lines: a.stderr}
	if c.mode == progressAuto {
		c.mode = pick(isTerminal(a.stderr), progressBar, progressPlain)
	}
	if a.set.quiet && c.mode != progressJSON {
		c.mode = progressNone
	}
	return c
}

// errorWriter is where messages go: above the bars, if there are any.
func (a *app) errorWriter() io.Writer {
	if a.con == nil {
		return a.stderr
	}
	return a.con
}

// Write puts whole lines on standard error.
func (c *console) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.write(b)
}

func (c *console) write(b []byte) (int, error) {
	if c.bars != nil && !c.finished {
		return c.bars.Write(b)
	}
	return c.lines.Write(b)
}

func (c *console) warn(text string) {
	c.event(host.Event{Kind: host.EventWarning, Message: text})
}

func (c *console) logger(level slog.Level) *slog.Logger {
	return slog.New(slog.NewTextHandler(c, &slog.HandlerOptions{Level: level, ReplaceAttr: func(groups []string, at slog.Attr) slog.Attr {
		if at.Key == slog.TimeKey && len(groups) == 0 {
			return slog.Attr{}
		}
		return at
	}}))
}

// finish takes the bars away. What is said later goes to standard error as it is.
func (c *console) finish() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.bars != nil && !c.finished {
		c.bars.finish()
	}
	c.finished = true
}

// event shows one event of the host.
func (c *console) event(e host.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mode == progressJSON {
		c.writeJSON(e)
		return
	}
	if text := c.line(e); text != "" {
		c.write([]byte(text + "\n"))
	}
	if c.mode == progressBar && !c.finished {
		if c.bars == nil {
			c.bars = newBars(c.lines)
		}
		c.bars.event(e, c.layerName(e))
	}
}

// writeJSON writes an event as one line. Its kind comes first.
func (c *console) writeJSON(e host.Event) {
	kind := string(e.Kind)
	e.Kind = ""
	b, err := message(kind, e)
	if err == nil {
		b = bytes.Replace(b, []byte(`"kind":"",`), nil, 1)
		b = bytes.Replace(b, []byte(`,"kind":""`), nil, 1)
		c.lines.Write(b) // progress that nobody reads is no failure
	}
}

// line returns what an event leaves behind on the screen, "" for nothing.
func (c *console) line(e host.Event) string {
	key := layerKey{e.Format, e.Dest, e.Descriptor.Digest}
	if e.Kind == host.EventLayerStarted {
		c.started[key] = time.Now()
	}
	switch e.Kind {
	case host.EventWarning:
		if c.app.set.quiet {
			return ""
		}
		return "convhost: warning: " + clean(e.Message)
	case host.EventWorkKept:
		return "convhost: working directory: " + clean(e.Message)
	case host.EventLayerDone:
		if c.mode == progressNone {
			return ""
		}
		text := fmt.Sprintf("%s %s → %s", c.layerName(e), size(e.Total), size(e.Output))
		if t, ok := c.started[key]; ok {
			text += " " + seconds(time.Since(t))
		}
		return text
	case host.EventLayerReused:
		if c.mode == progressNone {
			return ""
		}
		return fmt.Sprintf("%s %s → %s reused", c.layerName(e), size(e.Total), size(e.Output))
	case host.EventPublished:
		if c.mode == progressNone {
			return ""
		}
		return fmt.Sprintf("published %s %s", clean(e.Dest), short(e.Descriptor.Digest))
	}
	return ""
}

// layerName names a layer by its digest: equal layers of several images are converted once. The format is said when
// there are several.
func (c *console) layerName(e host.Event) string {
	name := "layer " + short(e.Descriptor.Digest)
	if c.app.targets > 1 {
		name += " to " + clean(e.Format)
	}
	return name
}

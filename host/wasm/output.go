package wasm

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
)

const (
	tailBytes = 4 << 10 // of a plugin's output that an error may show
	lineBytes = 1 << 10 // of a line that is logged
	maxLines  = 200     // logged in one call
)

// output takes what a plugin writes to stdout and stderr: the last 4 KiB for an error, the first lines for the log.
type output struct {
	log   *slog.Logger
	tail  []byte // at most 2 * tailBytes
	line  []byte
	lines int
}

func (o *output) write(p []byte) {
	for rest := p; o.lines < maxLines && len(rest) > 0; {
		line, after, found := bytes.Cut(rest, []byte("\n"))
		o.line = append(o.line, line[:min(len(line), lineBytes-len(o.line))]...)
		if rest = after; found {
			if o.lines++; o.lines == maxLines {
				o.line = append(o.line[:0], "(more output of the plugin is dropped)"...)
			}
			o.log.LogAttrs(context.Background(), slog.LevelDebug, "plugin output", slog.String("line", string(o.line)))
			o.line = o.line[:0]
		}
	}
	o.tail = append(o.tail, p[max(0, len(p)-tailBytes):]...)
	if len(o.tail) > tailBytes {
		o.tail = append(o.tail[:0], o.tail[len(o.tail)-tailBytes:]...)
	}
}

// why finds the line that says why a program died: Go's panic or fatal error, else the last line.
func (o *output) why() string {
	lines := strings.Split(strings.ToValidUTF8(string(o.tail), "\uFFFD"), "\n")
	last := ""
	for _, l := range lines {
		for _, prefix := range []string{"panic: ", "fatal error: "} {
			if strings.HasPrefix(l, prefix) {
				return clip(l)
			}
		}
		if l = strings.TrimSpace(l); l != "" {
			last = l
		}
	}
	return clip(last)
}

func clip(s string) string {
	if len(s) > lineBytes {
		s = strings.ToValidUTF8(s[:lineBytes], "") + "…"
	}
	return s
}

package native

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// printed is what a plugin prints: lines for the log, and the last of them for error messages.
type printed struct {
	log *slog.Logger

	mu      sync.Mutex
	tail    []string
	partial []byte // of Write
	second  time.Time
	count   int
	dropped int
	crashed bool // a Go program says why it crashed
	stack   bool // … and now where
}

const (
	tailLines     = 12
	tailLine      = 400  // bytes of a line that are kept
	linesASecond  = 1000 // more are dropped: a plugin that floods is not the host's problem
	maxStderrLine = 64 << 10
)

// read takes lines from r until it ends.
func (o *printed) read(r io.Reader) {
	br := bufio.NewReaderSize(r, maxStderrLine)
	for {
		line, more, err := br.ReadLine()
		if len(line) > 0 {
			o.line(string(line))
		}
		for more && err == nil { // the rest of a line that is too long
			_, more, err = br.ReadLine()
		}
		if err != nil {
			return
		}
	}
}

// Write takes what the plugin prints through go-plugin.
func (o *printed) Write(p []byte) (int, error) {
	o.mu.Lock()
	o.partial = append(o.partial, p...)
	lines := strings.Split(string(o.partial), "\n")
	rest := lines[len(lines)-1]
	lines = lines[:len(lines)-1]
	if len(rest) > maxStderrLine {
		lines, rest = append(lines, rest), ""
	}
	o.partial = []byte(rest)
	o.mu.Unlock()
	for _, l := range lines {
		o.line(l)
	}
	return len(p), nil
}

func (o *printed) line(s string) {
	s = strings.TrimRight(s, "\r\n")
	level, msg, attrs := parseLine(s)
	o.mu.Lock()
	if strings.HasPrefix(s, "panic: ") || strings.HasPrefix(s, "fatal error: ") {
		o.crashed = true
	}
	// What go-plugin says of itself is no last word. The words above a stack trace are; the trace is for the log.
	quiet := level < slog.LevelWarn && msg != s
	o.stack = o.stack || o.crashed && (strings.HasPrefix(s, "goroutine ") || strings.HasPrefix(s, "[signal "))
	if o.crashed {
		level = slog.LevelInfo
	}
	if !quiet && !o.stack {
		if o.tail = append(o.tail, msg[:min(len(msg), tailLine)]); len(o.tail) > tailLines {
			o.tail = o.tail[1:]
		}
	}
	now := time.Now()
	if now.Sub(o.second) > time.Second {
		o.second, o.count = now, 0
	}
	o.count++
	drop := o.count > linesASecond
	if drop {
		o.dropped++
	}
	o.mu.Unlock()
	if !drop {
		o.log.LogAttrs(context.Background(), level, msg, attrs...)
	}
}

// words returns the last lines in one.
func (o *printed) words() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return strings.Join(slices.DeleteFunc(slices.Clone(o.tail), func(s string) bool { return strings.TrimSpace(s) == "" }), " | ")
}

var hclogLevels = map[string]slog.Level{
	"trace": slog.LevelDebug - 4, "debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError,
}

// parseLine reads a line in hclog's JSON format; any other line is a message of level debug.
func parseLine(s string) (slog.Level, string, []slog.Attr) {
	var m map[string]any
	if !strings.HasPrefix(s, "{") || json.Unmarshal([]byte(s), &m) != nil {
		return slog.LevelDebug, s, nil
	}
	name, _ := m["@level"].(string)
	msg, ok := m["@message"].(string)
	level, known := hclogLevels[name]
	if !ok || !known {
		return slog.LevelDebug, s, nil
	}
	var attrs []slog.Attr
	for _, k := range slices.Sorted(maps.Keys(m)) {
		if !strings.HasPrefix(k, "@") {
			attrs = append(attrs, slog.Any(k, m[k]))
		}
	}
	return level, msg, attrs
}

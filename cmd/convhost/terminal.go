package main

// Rules of terminal output.
//
//   - Results go to standard output, everything else to standard error. Without a result, standard output is empty.
//   - A message starts with "convhost: " (warnings: "convhost: warning: "), is lower case and has no full stop. It stands
//     on one line. What can be done about it stands on the next, after "hint: ".
//   - Text that comes from images, plugins and registries is printed with control characters escaped.
//   - Bars and box characters are for terminals; a pipe or a file gets plain lines. No colours.
//   - Sizes are in powers of ten with three digits ("53.1 MB"), exact bytes in JSON. Digests are never shortened in
//     results, in progress they are.
//   - With --json, standard output is one JSON document, with the field "kind"; see docs/scripting.md.

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"golang.org/x/term"

	"github.com/convhost/convhost/abi"
)

func isTerminal(v any) bool {
	f, ok := v.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// clean makes text from outside printable on one line.
func clean(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) || r == unicode.ReplacementChar }) < 0 {
		return s
	}
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == '\n':
			b.WriteString("; ")
		case r == unicode.ReplacementChar && s[i] != 0xef: // a byte that is no UTF-8
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case unicode.IsPrint(r):
			b.WriteRune(r)
		default:
			q := strconv.QuoteRuneToASCII(r)
			b.WriteString(q[1 : len(q)-1])
		}
	}
	return b.String()
}

// size prints bytes for people.
func size(n int64) string {
	if n < 1000 {
		return strconv.FormatInt(n, 10) + " B"
	}
	f, unit := float64(n)/1000, 0
	for f >= 999.5 && unit < 5 {
		f, unit = f/1000, unit+1
	}
	digits := 1
	if f >= 99.95 {
		digits = 0
	}
	return strconv.FormatFloat(f, 'f', digits, 64) + " " + string("kMGTPE"[unit]) + "B"
}

// seconds prints a duration for people.
func seconds(d time.Duration) string { return strconv.FormatFloat(d.Seconds(), 'f', 1, 64) + " s" }

// count prints a number with its noun.
func count[T int | int64](n T, noun string) string {
	switch {
	case n == 1:
		return "1 " + noun
	case strings.HasSuffix(noun, "y"):
		return fmt.Sprintf("%d %sies", n, strings.TrimSuffix(noun, "y"))
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// short cuts a digest to what a person can compare.
func short[T ~string](d T) string {
	algo, hex, ok := strings.Cut(string(d), ":")
	if !ok || len(hex) <= 12 {
		return clean(string(d))
	}
	return clean(algo + ":" + hex[:12] + "…")
}

// table prints aligned columns.
type table struct {
	buf bytes.Buffer
	tab *tabwriter.Writer
}

func newTable() *table {
	t := &table{}
	t.tab = tabwriter.NewWriter(&t.buf, 0, 0, 2, ' ', 0)
	return t
}

// row adds a line; every cell is cleaned, the empty ones at its end are left out.
func (t *table) row(cells ...string) {
	for len(cells) > 0 && cells[len(cells)-1] == "" {
		cells = cells[:len(cells)-1]
	}
	for i := range cells {
		cells[i] = clean(cells[i])
	}
	fmt.Fprintln(t.tab, strings.Join(cells, "\t"))
}

// line ends the columns and adds text.
func (t *table) line(format string, args ...any) {
	t.tab.Flush()
	fmt.Fprintln(&t.buf, clean(fmt.Sprintf(format, args...)))
}

func (t *table) bytes() []byte {
	t.tab.Flush()
	return t.buf.Bytes()
}

// result writes what the command was asked for: a JSON document or text.
func (a *app) result(kind string, document any, text func(*table)) error {
	var out []byte
	if a.set.json {
		b, err := message(kind, document)
		if err != nil {
			return err
		}
		out = b
	} else {
		t := newTable()
		text(t)
		out = t.bytes()
	}
	return writeAll(a.stdout, out)
}

func writeAll(w io.Writer, b []byte) error {
	if _, err := w.Write(b); err != nil {
		return abi.Errorf(abi.ErrIO, "write to standard output: %w", err)
	}
	return nil
}

// message encodes a struct as one line of JSON with the field "kind" in front.
func message(kind string, document any) ([]byte, error) {
	var body bytes.Buffer
	enc := json.NewEncoder(&body)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(document); err != nil {
		return nil, abi.Errorf(abi.ErrInternal, "encode %s: %w", kind, err)
	}
	out := append([]byte(`{"kind":`), strconv.Quote(kind)...)
	if rest := body.Bytes()[1:]; rest[0] != '}' {
		out = append(out, ',')
	}
	return append(out, body.Bytes()[1:]...), nil
}

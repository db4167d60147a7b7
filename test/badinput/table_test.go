package badinput

import (
	"bytes"
	"os"
	"regexp"
	"strings"
	"testing"
)

const document = "../../docs/errors.md"

var digests = regexp.MustCompile(`(sha256[:/])([0-9a-f]{64}|[0-9a-f]{12}…)`)

// markdown makes a table cell of what the command printed. Digests are cut: they say nothing to a reader of the table.
func markdown(text string) string {
	if text == "" {
		return "nothing: it works"
	}
	text = digests.ReplaceAllString(text, "$1…")
	var lines []string
	for _, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		line = strings.ReplaceAll(line, "|", `\|`)
		if strings.Contains(line, "`") {
			line = "`` " + line + " ``"
		} else {
			line = "`" + line + "`"
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "<br>")
}

// compareTables holds docs/errors.md against what was printed, or rewrites it.
func compareTables(t *testing.T, tables map[string]*bytes.Buffer) {
	old, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	text := string(old)
	for name, table := range tables {
		begin, end := "<!-- begin "+name+" -->\n", "<!-- end "+name+" -->\n"
		i, j := strings.Index(text, begin), strings.Index(text, end)
		if i < 0 || j < i {
			t.Fatalf("%s: no lines %q and %q", document, begin, end)
		}
		if have := text[i+len(begin) : j]; have != table.String() && !*update {
			t.Errorf("%s: the table of %s is not what is printed; go test ./test/badinput -update rewrites it\n%s", document, name, difference(have, table.String()))
		}
		text = text[:i+len(begin)] + table.String() + text[j:]
	}
	if *update && text != string(old) {
		if err := os.WriteFile(document, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// difference lists the lines that only one side has.
func difference(have, want string) string {
	var out strings.Builder
	for _, side := range []struct{ sign, a, b string }{{"-", have, want}, {"+", want, have}} {
		for _, line := range strings.SplitAfter(side.a, "\n") {
			if !strings.Contains(side.b, line) {
				out.WriteString(side.sign + line)
			}
		}
	}
	return out.String()
}

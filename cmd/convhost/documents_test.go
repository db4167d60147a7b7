package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/convhost/convhost/host"
)

var update = flag.Bool("update", false, "write docs/cli.md")

// TestReference holds docs/cli.md against the commands.
func TestReference(t *testing.T) {
	file := filepath.Join("..", "..", "docs", "cli.md")
	want := reference()
	if *update {
		if err := os.WriteFile(file, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("docs/cli.md is not what the commands say: run go test ./cmd/convhost -run Reference -update")
	}
}

// reference writes the manual of all commands.
func reference() []byte {
	a := &app{stdout: io.Discard, stderr: io.Discard}
	root := a.rootCommand()
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	var b bytes.Buffer
	b.WriteString("# The convhost command\n\nMade from the commands' own help by `go test ./cmd/convhost -run Reference -update`; do not edit.\n\n")
	fmt.Fprintf(&b, "%s\n", root.Long)
	var topics []*cobra.Command
	var walk func(*cobra.Command)
	walk = func(c *cobra.Command) {
		switch {
		case c.IsAdditionalHelpTopicCommand():
			topics = append(topics, c)
		case c.IsAvailableCommand() && c.Runnable() && !c.HasAvailableSubCommands():
			describe(&b, c)
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(root)
	for _, c := range topics {
		fmt.Fprintf(&b, "\n## convhost help %s\n\nWhat it is about: %s.\n\n```\n%s\n```\n", c.Name(), c.Short, strings.TrimRight(c.Long, "\n"))
	}
	return b.Bytes()
}

func describe(b *bytes.Buffer, c *cobra.Command) {
	fmt.Fprintf(b, "\n## %s\n\n    %s\n\n", c.CommandPath(), c.UseLine())
	if c.Parent().Name() == "completion" {
		fmt.Fprintf(b, "%s.\n", c.Short) // cobra's text; --help shows the whole of it
		return
	}
	fmt.Fprintf(b, "%s\n", c.Long)
	flags := c.NonInheritedFlags()
	any := false
	flags.VisitAll(func(f *pflag.Flag) { any = any || !f.Hidden && f.Name != "help" })
	if any {
		fmt.Fprintf(b, "\n```\n%s```\n", flags.FlagUsages())
	}
	if c.Example != "" {
		fmt.Fprintf(b, "\nExamples:\n\n```\n%s\n```\n", regexp.MustCompile(`(?m)^  `).ReplaceAllString(c.Example, ""))
	}
}

// TestScripting holds docs/scripting.md against the code: every exit code, every kind of message.
func TestScripting(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join("..", "..", "docs", "scripting.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^ *(\d+)  `).FindAllStringSubmatch(exitHelp, -1) {
		if !regexp.MustCompile(`(?m)^\| ` + m[1] + ` \|`).Match(doc) {
			t.Errorf("docs/scripting.md does not tell of exit code %s", m[1])
		}
	}
	kinds := []string{"converted", "verified", "checked", "unpacked", "graph", "inspected", "plugins", "plugin", "version", "error", "remembered", "pruned", "upstream"}
	for _, k := range []host.EventKind{host.EventResolved, host.EventLayerStarted, host.EventLayerProgress, host.EventLayerDone, host.EventLayerReused,
		host.EventManifestDone, host.EventPushStarted, host.EventPushProgress, host.EventPublished, host.EventDropped, host.EventWarning} {
		kinds = append(kinds, string(k))
	}
	for _, k := range kinds {
		if !strings.Contains(string(doc), "`"+k+"`") {
			t.Errorf("docs/scripting.md does not tell of messages of the kind %s", k)
		}
	}
}

// TestMessage: kind stands first, and the rest is what the struct says.
func TestMessage(t *testing.T) {
	for want, doc := range map[string]any{
		`{"kind":"x"}`: struct{}{},
		`{"kind":"x","a":"<&>"}`: struct {
			A string `json:"a"`
		}{"<&>"},
	} {
		got, err := message("x", doc)
		if err != nil || strings.TrimSpace(string(got)) != want || !json.Valid(got) {
			t.Errorf("message is %s, %v, want %s", got, err, want)
		}
	}
}

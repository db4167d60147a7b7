package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host"
)

// recorder is an engine that remembers what it was asked.
type recorder struct {
	set     settings
	convert host.ConvertRequest
	attach  host.AttachRequest
	err     error
	events  func(host.Event)
	play    []host.Event
}

func (r *recorder) open(set *settings, events func(host.Event), _ *slog.Logger) (engine, error) {
	r.set, r.events = *set, events
	return r, nil
}

func (r *recorder) Convert(_ context.Context, req host.ConvertRequest) ([]host.Result, error) {
	r.convert = req
	for _, e := range r.play {
		r.events(e)
	}
	return nil, r.err
}

func (r *recorder) Verify(context.Context, host.VerifyRequest) ([]host.VerifyResult, error) {
	return nil, r.err
}
func (r *recorder) Unpack(_ context.Context, req host.UnpackRequest) (*host.UnpackResult, error) {
	req.Out.Write([]byte("half of a t"))
	return &host.UnpackResult{}, r.err
}
func (r *recorder) Check(context.Context, host.CheckRequest) ([]host.CheckResult, error) {
	return nil, r.err
}
func (r *recorder) Attach(_ context.Context, req host.AttachRequest) (*host.Attachment, error) {
	r.attach = req
	return &host.Attachment{}, r.err
}
func (r *recorder) Detach(context.Context, host.DetachRequest) error { return r.err }
func (r *recorder) Attachments(context.Context) ([]host.AttachmentInfo, error) {
	return nil, r.err
}
func (r *recorder) Graph(context.Context, string) (*host.GraphResult, error) {
	return &host.GraphResult{}, r.err
}
func (r *recorder) Inspect(context.Context, string) (*host.InspectResult, error) {
	return &host.InspectResult{}, r.err
}
func (r *recorder) Plugins(context.Context) []host.PluginInfo { return nil }
func (r *recorder) Plugin(context.Context, string, host.Runtime) (host.PluginInfo, error) {
	return host.PluginInfo{}, r.err
}
func (r *recorder) Close() error { return nil }

// try runs a command line against the recorder.
func (r *recorder) try(t *testing.T, env []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
	t.Setenv("HOME", t.TempDir())
	t.Setenv("AppData", t.TempDir())
	var out, errs bytes.Buffer
	args = append([]string{"convhost", "--cache-dir", ""}, args...)
	code = runWith(t.Context(), r.open, args, strings.NewReader(""), &out, &errs, env)
	return code, out.String(), errs.String()
}

func TestConvertRequest(t *testing.T) {
	all := host.Selection{All: true}
	none := map[string]string{}
	for _, tt := range []struct {
		name string
		args string
		want host.ConvertRequest
		code int
	}{
		{"one target", "oci:a oci:b -f nydus", host.ConvertRequest{Source: "oci:a", Select: all, Attestations: "drop",
			Targets: []host.Target{{Format: "nydus", Dest: "oci:b", Options: none, MediaTypes: "source"}}}, 0},
		{"everything", "oci:a oci:b -f ./x.wasm --platform linux/amd64,linux/arm64 --platform windows/amd64 --runtime wasm --attestations keep --verify -o a=1 -o b=x=y",
			host.ConvertRequest{Source: "oci:a", Attestations: "keep", Verify: true,
				Select:  host.Selection{Platforms: []string{"linux/amd64", "linux/arm64", "windows/amd64"}},
				Targets: []host.Target{{Format: "./x.wasm", Dest: "oci:b", Runtime: "wasm", Options: map[string]string{"a": "1", "b": "x=y"}, MediaTypes: "source"}}}, 0},
		{"several targets, options of all and of one", "oci:a --to nydus=oci:b --to ./x.wasm=oci:c:d=e -o level=3 -o nydus:mode=6 -o ./x.wasm:mode=7",
			host.ConvertRequest{Source: "oci:a", Select: all, Attestations: "drop", Targets: []host.Target{
				{Format: "nydus", Dest: "oci:b", Options: map[string]string{"level": "3", "mode": "6"}, MediaTypes: "source"},
				{Format: "./x.wasm", Dest: "oci:c:d=e", Options: map[string]string{"level": "3", "mode": "7"}, MediaTypes: "source"}}}, 0},
		{"documents", "oci:a oci:b -f nydus --media-types docker --dump-manifest d --keep-work", host.ConvertRequest{Source: "oci:a", Select: all, Attestations: "drop",
			DumpDir: "d", KeepWork: true, Targets: []host.Target{{Format: "nydus", Dest: "oci:b", Options: none, MediaTypes: "docker"}}}, 0},
		{"dry run and dictionaries", "oci:a -f nydus --dry-run --referrer --dict base --dict nydus:base:2", host.ConvertRequest{Source: "oci:a", Select: all,
			Attestations: "drop", DryRun: true, Targets: []host.Target{{Format: "nydus", Options: none, MediaTypes: "source", Referrers: true,
				Dicts: []string{"base", "base:2"}}}}, 0},
		{"dictionaries of formats", "oci:a --to nydus --to ./x.wasm --dry-run --dict nydus:n --dict ./x.wasm:x --dict both", host.ConvertRequest{Source: "oci:a",
			Select: all, Attestations: "drop", DryRun: true, Targets: []host.Target{
				{Format: "nydus", Options: none, MediaTypes: "source", Dicts: []string{"n", "both"}},
				{Format: "./x.wasm", Options: none, MediaTypes: "source", Dicts: []string{"x", "both"}}}}, 0},
		{"a family that is none", "oci:a oci:b -f nydus --media-types schema1", host.ConvertRequest{}, 2},
		{"no target", "oci:a --to nydus", host.ConvertRequest{}, 2},
		{"option of another format", "oci:a oci:b -f nydus -o cim:x=1", host.ConvertRequest{}, 2},
		{"option with two values", "oci:a oci:b -f nydus -o x=1 -o x=2", host.ConvertRequest{}, 2},
		{"option without name", "oci:a oci:b -f nydus -o =2", host.ConvertRequest{}, 2},
		{"one place for two formats", "oci:a --to nydus=oci:b --to cim=oci:b", host.ConvertRequest{}, 2},
		{"empty platform", "oci:a oci:b -f nydus --platform linux/amd64,,x", host.ConvertRequest{}, 2},
		{"no format in --to", "oci:a --to =oci:b", host.ConvertRequest{}, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var r recorder
			code, _, stderr := r.try(t, nil, append([]string{"convert"}, strings.Fields(tt.args)...)...)
			if code != tt.code {
				t.Fatalf("exit code %d, want %d: %s", code, tt.code, stderr)
			}
			if diff := cmp.Diff(tt.want, r.convert); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestPrecedence(t *testing.T) {
	file := t.TempDir() + "/c.yaml"
	yaml := "jobs: 3\nlimit-memory: 1GiB\nlimit-stall: 7s\nplugin-dir: [" + t.TempDir() + "]\nplatform: [linux/arm64, linux/amd64]\nverify: true\n"
	if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	env := []string{"CONVHOST_CONFIG=" + file, "CONVHOST_JOBS=5", "CONVHOST_LIMIT_RATIO=99", "CONVHOST_PLATFORM=linux/s390x,linux/386", "UNRELATED=x"}
	var r recorder
	if code, _, stderr := r.try(t, env[:1], "convert", "oci:a", "oci:b", "-f", "x"); code != 0 || r.set.jobs != 3 ||
		r.set.limits.PluginMemory != 1<<30 || r.set.limits.PluginStall != 7*time.Second || len(r.set.pluginDirs) != 1 ||
		!r.convert.Verify || !cmp.Equal(r.convert.Select.Platforms, []string{"linux/arm64", "linux/amd64"}) {
		t.Errorf("file: code %d, %+v, %+v: %s", code, r.set, r.convert, stderr)
	}
	if code, _, stderr := r.try(t, env, "convert", "oci:a", "oci:b", "-f", "x"); code != 0 || r.set.jobs != 5 ||
		r.set.limits.LayerRatio != 99 || r.set.limits.PluginMemory != 1<<30 ||
		!cmp.Equal(r.convert.Select.Platforms, []string{"linux/s390x", "linux/386"}) {
		t.Errorf("environment: code %d, %+v, %+v: %s", code, r.set, r.convert, stderr)
	}
	if code, _, stderr := r.try(t, env, "convert", "oci:a", "oci:b", "-f", "x", "--jobs", "7", "--verify=false", "--all-platforms"); code != 0 ||
		r.set.jobs != 7 || r.convert.Verify || !r.convert.Select.All || len(r.convert.Select.Platforms) != 0 {
		t.Errorf("flags: code %d, %+v, %+v: %s", code, r.set, r.convert, stderr)
	}
	if host.DefaultLimits().LayerRatio == 99 {
		t.Error("the default limits changed")
	}
}

// TestExitCodes holds the one switch against the topic that people read; documents_test.go against docs/scripting.md.
func TestExitCodes(t *testing.T) {
	seen := map[int]bool{0: true, 1: true}
	for c := abi.ErrInternal; c <= abi.ErrMismatch; c++ {
		code := exitCode(abi.Errorf(c, "x"))
		if seen[code] && c != abi.ErrInternal {
			t.Errorf("class %d has the exit code %d of another", c, code)
		}
		seen[code] = true
	}
	if got := exitCode(errors.New("of no class")); got != 1 {
		t.Errorf("unknown errors have exit code %d, want 1", got)
	}
	for _, line := range strings.Split(strings.TrimSpace(exitHelp), "\n\n")[0:1] {
		if n := len(strings.Split(line, "\n")); n != len(seen) {
			t.Errorf("the help tells of %d codes, there are %d", n, len(seen))
		}
	}
}

func TestNothingHalfMade(t *testing.T) {
	dir := t.TempDir()
	r := recorder{err: abi.Errorf(abi.ErrCorrupt, "bad")}
	code, stdout, _ := r.try(t, nil, "unpack", "oci:a", dir+"/out.tar")
	if left, _ := os.ReadDir(dir); code != 4 || stdout != "" || len(left) > 0 {
		t.Errorf("code %d, %q on standard output, left behind: %v", code, stdout, left)
	}
	code, _, _ = r.try(t, nil, "unpack", "oci:a", "--layers", dir+"/out")
	if left, _ := os.ReadDir(dir); code != 4 || len(left) > 0 {
		t.Errorf("code %d, left behind: %v", code, left)
	}
}

func TestHints(t *testing.T) {
	for _, tt := range []struct {
		class      abi.Class
		args, hint string
	}{
		{abi.ErrDenied, "convert docker://registry.example/app:1 oci:b -f nydus", "hint: docker login registry.example stores credentials that convhost uses too"},
		{abi.ErrDenied, "convert oci:a docker://registry.example:5000/app:1 -f nydus", "hint: docker login registry.example:5000 "},
		{abi.ErrDenied, "convert oci:a oci:b -f nydus", ""},
		{abi.ErrNotFound, "convert oci:a oci:b -f nodus", "hint: convhost plugin list shows the formats"},
		{abi.ErrNotFound, "plugin info nodus", "hint: convhost plugin list shows the formats"},
		{abi.ErrNotFound, "graph oci:a", ""},
		{abi.ErrLimit, "graph oci:a", ""},
		{abi.ErrInternal, "graph oci:a", "hint: this is a fault of convhost"},
	} {
		r := recorder{err: abi.Errorf(tt.class, "bad")}
		code, _, stderr := r.try(t, nil, strings.Fields(tt.args)...)
		first, rest, _ := strings.Cut(stderr, "\n")
		if code != exitCode(r.err) || first != "convhost: bad" || !strings.HasPrefix(rest, tt.hint) || tt.hint == "" && rest != "" {
			t.Errorf("%s, %v: code %d, %q, want the hint %q", tt.args, tt.class, code, stderr, tt.hint)
		}
	}
}

func TestErrorsOnOneLine(t *testing.T) {
	r := recorder{err: errors.Join(abi.Errorf(abi.ErrIO, "one\x1b[2J\xff"), errors.New("two"))}
	code, stdout, stderr := r.try(t, nil, "graph", "oci:a")
	if want := "convhost: one\\x1b[2J\\xff; two\n"; code != 14 || stdout != "" || stderr != want {
		t.Errorf("code %d, %q, want %q", code, stderr, want)
	}
}

// layerEvents is what a conversion of two layers tells.
func layerEvents() []host.Event {
	a, b := ocispec.Descriptor{Digest: digest.FromString("a"), Size: 53_100_000}, ocispec.Descriptor{Digest: digest.FromString("b"), Size: 10}
	return []host.Event{
		{Kind: host.EventResolved, Descriptor: ocispec.Descriptor{Digest: digest.FromString("root"), Size: 1}},
		{Kind: host.EventLayerStarted, Format: "x", Dest: "d", Descriptor: a, Total: a.Size},
		{Kind: host.EventLayerStarted, Format: "x", Dest: "d", Descriptor: b, Total: b.Size},
		{Kind: host.EventLayerProgress, Format: "x", Dest: "d", Descriptor: a, Done: 1000, Total: a.Size},
		{Kind: host.EventLayerDone, Format: "x", Dest: "d", Descriptor: a, Done: a.Size, Total: a.Size, Output: 49_000_000},
		{Kind: host.EventWarning, Message: "mind\nthis"},
		{Kind: host.EventLayerDone, Format: "x", Dest: "d", Descriptor: b, Done: b.Size, Total: b.Size, Output: 1234},
		{Kind: host.EventPushStarted, Format: "x", Dest: "d", Total: 100},
		{Kind: host.EventPushProgress, Format: "x", Dest: "d", Done: 100, Total: 100},
		{Kind: host.EventPublished, Format: "x", Dest: "d", Descriptor: a},
	}
}

func TestProgress(t *testing.T) {
	a, b := short(digest.FromString("a")), short(digest.FromString("b"))
	lines := "layer " + a + " 53.1 MB → 49.0 MB 0.0 s\nconvhost: warning: mind; this\nlayer " + b + " 10 B → 1.2 kB 0.0 s\npublished d " + a + "\n"
	for mode, want := range map[string]string{"plain": lines, "auto": lines, "none": "convhost: warning: mind; this\n"} {
		r := recorder{play: layerEvents()}
		if _, _, got := r.try(t, nil, "convert", "oci:a", "d", "-f", "x", "--progress", mode); got != want {
			t.Errorf("%s:\n%swant\n%s", mode, got, want)
		}
	}
	// bars: the same lines stand above them, and nothing hangs when the work ends
	r := recorder{play: layerEvents()}
	_, _, got := r.try(t, nil, "convert", "oci:a", "d", "-f", "x", "--progress", "bar")
	for line := range strings.Lines(lines) {
		if !strings.Contains(got, strings.TrimSpace(line)) {
			t.Errorf("bars do not leave %q behind:\n%s", line, got)
		}
	}
}

func TestProgressJSON(t *testing.T) {
	r := recorder{play: layerEvents()}
	_, _, got := r.try(t, nil, "convert", "oci:a", "d", "-f", "x", "--progress", "json")
	if n := strings.Count(got, "\n"); n != len(r.play) {
		t.Errorf("%d lines, want %d", n, len(r.play))
	}
	for line := range strings.Lines(got) {
		if !strings.HasPrefix(line, `{"kind":"`) || strings.Count(line, `"kind"`) != 1 {
			t.Errorf("line %q does not start with its kind", line)
		}
	}
}

func TestValues(t *testing.T) {
	for in, want := range map[string]int64{"1": 1, "512MiB": 512 << 20, "1.5GB": 1_500_000_000, "2 kB": 2000, "7B": 7} {
		var b byteSize
		if err := b.Set(in); err != nil || int64(b) != want {
			t.Errorf("%q is %d, %v, want %d", in, b, err, want)
		}
	}
	for _, in := range []string{"", "MiB", "-1", "0", "NaN", "1e30", "1PB", "1 2"} {
		if err := new(byteSize).Set(in); err == nil {
			t.Errorf("%q is accepted", in)
		}
	}
	for in, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "1.0 kB", 53_141_592: "53.1 MB", 999_960: "1.0 MB", 204_000_000: "204 MB", 1 << 62: "4.6 EB"} {
		if got := size(in); got != want {
			t.Errorf("size(%d) is %q, want %q", in, got, want)
		}
	}
}

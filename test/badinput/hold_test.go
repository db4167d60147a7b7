package badinput

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode"

	"go.uber.org/goleak"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host"
	"github.com/convhost/convhost/host/graph/graphtest"
	"github.com/convhost/convhost/plugins/nydus"
	"github.com/convhost/convhost/plugins/overlaybd"
	"github.com/convhost/convhost/sdk"
)

const (
	patience = 30 * time.Second // for one case, on a busy machine; nothing should take a tenth of it
	memory   = 320 << 20        // resident, of the command
)

// throughHost converts with package host, with a good conversion beside it.
func (w *world) throughHost() {
	w.t.Helper()
	before := goleak.IgnoreCurrent()
	w.t.Setenv("TMPDIR", filepath.Join(w.dir, "tmp"))
	w.t.Chdir(w.dir)
	h, err := host.New(host.WithBuiltin(
		host.Builtin{Name: "nydus", InProcess: sdk.InProcess(nydus.New())},
		host.Builtin{Name: "overlaybd", InProcess: sdk.InProcess(overlaybd.New())},
		host.Builtin{Name: "turboci", InProcess: sdk.InProcess(overlaybd.NewTurbo())},
	), host.WithCacheDir(cache), host.WithLimits(w.limits))
	w.must(err)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	bystander := w.bystander(ctx, h)
	_, err = h.Convert(ctx, host.ConvertRequest{Source: "oci:src:t", Select: host.Selection{All: true},
		Targets: []host.Target{{Format: w.formatName(), Dest: "oci:out:t", Options: w.options}}})
	bystander()
	w.judge(err)
	if err != nil {
		w.message = err.Error()
	}
	if err == nil {
		w.look(ctx, h)
	} else if _, serr := os.Stat("out"); !errors.Is(serr, fs.ErrNotExist) {
		w.t.Errorf("the target is there after %v: %v", err, snapshot(w, "out"))
	}
	w.must(h.Close())
	w.clean()
	if err := goleak.Find(before); err != nil {
		w.t.Error(err)
	}
}

func (w *world) formatName() string {
	if w.format == "" {
		return "nydus"
	}
	return w.format
}

// judge holds an error against the class and the words of the case.
func (w *world) judge(err error) {
	w.t.Helper()
	if w.class == 0 {
		if err != nil {
			w.t.Errorf("must work: %v", err)
		}
		return
	}
	if !errors.Is(err, w.class) || abi.ClassOf(err) != w.class {
		w.t.Errorf("error %v (%v), want %v", err, abi.ClassOf(err), w.class)
		return
	}
	w.contains(err.Error())
}

func (w *world) contains(text string) {
	w.t.Helper()
	for _, s := range w.says {
		if !strings.Contains(text, s) {
			w.t.Errorf("message %q does not say %q", text, s)
		}
	}
}

// bystander converts a good image on h again and again until the function that it returns is called, and once more.
func (w *world) bystander(ctx context.Context, h *host.Host) (stop func()) {
	good := world{t: w.t, dir: filepath.Join(w.dir, "good"), Store: graphtest.NewStore()}
	w.must(os.MkdirAll(filepath.Join(good.dir, "src/blobs/sha256"), 0o755))
	good.image(goodLayer(good.Store))
	good.writeLayout()
	ended, done := make(chan struct{}), make(chan error, 1)
	go func() {
		var first string
		for i, last := 0, false; ; i++ {
			select {
			case <-ended:
				last = true
			default:
			}
			r, err := h.Convert(ctx, host.ConvertRequest{Source: "oci:good/src:t",
				Targets: []host.Target{{Format: "nydus", Dest: fmt.Sprintf("oci:good/out:%d", i)}}})
			if err == nil && first != "" && string(r[0].Root.Digest) != first {
				err = fmt.Errorf("root is %s, was %s", r[0].Root.Digest, first)
			}
			if err != nil || last {
				done <- err
				return
			}
			first = string(r[0].Root.Digest)
			time.Sleep(10 * time.Millisecond)
		}
	}()
	return func() {
		w.t.Helper()
		close(ended)
		if err := <-done; err != nil {
			w.t.Errorf("a good conversion beside the bad one: %v", err)
		}
	}
}

// look compares a result that must work with its source, and its names with what the case says.
func (w *world) look(ctx context.Context, h *host.Host) {
	w.t.Helper()
	if w.format != "" && w.format != "overlaybd" && w.format != "turboci" {
		return
	}
	if r, err := h.Verify(ctx, host.VerifyRequest{Source: "oci:src:t", Converted: "oci:out:t"}); err != nil {
		w.t.Errorf("verify: %v, %+v", err, r)
	}
	pr, pw := io.Pipe()
	go func() {
		_, err := h.Unpack(ctx, host.UnpackRequest{Image: "oci:out:t", Layer: -1, Out: pw})
		pw.CloseWithError(err)
	}()
	names, tr := map[string]bool{}, tar.NewReader(pr)
	for {
		hdr, err := tr.Next()
		if err == io.EOF {
			break
		}
		w.must(err)
		names[strings.TrimSuffix(strings.TrimPrefix(hdr.Name, "./"), "/")] = true
	}
	_, err := io.Copy(io.Discard, pr)
	w.must(err)
	for _, n := range w.names {
		if !names[n] {
			w.t.Errorf("the result lacks %q", n)
		}
	}
	if w.count > 0 && len(names) != w.count {
		w.t.Errorf("the result has %d names, want %d", len(names), w.count)
	}
}

// clean reports what was left in the temporary directory.
func (w *world) clean() {
	w.t.Helper()
	if left := snapshot(w, "tmp"); len(left) > 1 {
		w.t.Errorf("left in the temporary directory: %v", left)
	}
}

// snapshot lists the files of a directory with their digests.
func snapshot(w *world, dir string) map[string]string {
	w.t.Helper()
	out := map[string]string{}
	w.must(filepath.WalkDir(filepath.Join(w.dir, dir), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			out[path] = "directory"
			return err
		}
		b, err := os.ReadFile(path)
		out[path] = fmt.Sprintf("%x", sha256.Sum256(b))
		return err
	}))
	return out
}

// throughCommand does what a user does, with a target that holds another image, and returns what was printed.
func (w *world) throughCommand() (text string, code int) {
	w.t.Helper()
	target := "oci:good/out:t" // the bystander's results are there
	before := snapshot(w, "good/out")
	args := append([]string{"convert", "oci:src:t", target, "--format", w.formatName(), "--quiet"}, w.limitFlags()...)
	for _, name := range slices.Sorted(maps.Keys(w.options)) {
		args = append(args, "--option", name+"="+w.options[name])
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, command, args...)
	cmd.Dir = w.dir
	cmd.Env = []string{"TMPDIR=" + filepath.Join(w.dir, "tmp"), "HOME=" + filepath.Join(w.dir, "home"), "CONVHOST_CACHE_DIR=" + cache,
		"PATH=" + os.Getenv("PATH"), "SYSTEMROOT=" + os.Getenv("SYSTEMROOT"), "GOCOVERDIR=" + os.Getenv("GOCOVERDIR")}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		w.t.Fatalf("%v: %v\n%s", args, err, stderr.String())
	}
	code = cmd.ProcessState.ExitCode()
	text = strings.ReplaceAll(stderr.String(), w.dir, "/home/user")
	if want := exitCodes[w.class]; code != want {
		w.t.Errorf("exit code %d, want %d: %s", code, want, text)
	}
	w.clean()
	if rss := peakMemory(cmd.ProcessState); rss > memory {
		w.t.Errorf("the command took %d MiB", rss>>20)
	}
	if w.class == 0 {
		if text != "" {
			w.t.Errorf("prints %q", text)
		}
		return text, code
	}
	w.contains(stderr.String())
	if line, _, _ := strings.Cut(stderr.String(), "\n"); line != "convhost: "+w.message && strings.IndexFunc(w.message, unicode.IsControl) < 0 {
		w.t.Errorf("the command prints\n\t%s\npackage host says\n\t%s", line, w.message)
	}
	if after := snapshot(w, "good/out"); fmt.Sprint(after) != fmt.Sprint(before) {
		w.t.Errorf("the target has changed: %v, was %v", after, before)
	}
	if stdout.Len() > 0 || !strings.HasPrefix(text, "convhost: ") {
		w.t.Errorf("prints %q and %q", stdout.String(), text)
	}
	return text, code
}

// exitCodes is what docs/scripting.md promises.
var exitCodes = map[abi.Class]int{
	0: 0, abi.ErrInternal: 1, abi.ErrInvalid: 2, abi.ErrUnsupported: 3, abi.ErrCorrupt: 4, abi.ErrTruncated: 5, abi.ErrDigest: 6,
	abi.ErrLimit: 7, abi.ErrNotFound: 8, abi.ErrExists: 9, abi.ErrDenied: 10, abi.ErrPlugin: 11, abi.ErrTimeout: 12, abi.ErrIO: 14,
	abi.ErrMismatch: 15, abi.ErrCanceled: 130,
}

// limitFlags says the limits of the case as flags.
func (w *world) limitFlags() (flags []string) {
	l := w.limits
	for _, f := range []struct {
		name string
		set  bool
		v    any
	}{
		{"memory", l.PluginMemory > 0, l.PluginMemory}, {"time", l.PluginTime > 0, l.PluginTime},
		{"stall", l.PluginStall > 0, l.PluginStall}, {"layer-size", l.LayerBytes > 0, l.LayerBytes},
	} {
		if f.set {
			flags = append(flags, fmt.Sprintf("--limit-%s=%v", f.name, f.v))
		}
	}
	return flags
}

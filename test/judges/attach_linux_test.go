package judges

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/olareg/olareg"
	"github.com/olareg/olareg/config"
	"github.com/opencontainers/go-digest"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host"
	"github.com/convhost/convhost/internal/layer/flatten"
	"github.com/convhost/convhost/plugins/overlaybd"
	"github.com/convhost/convhost/plugins/overlaybd/blockdev"
	"github.com/convhost/convhost/sdk"
	"github.com/convhost/convhost/test/judge"
	"github.com/convhost/convhost/test/kitchen"
	"github.com/convhost/convhost/test/ocidir"
	"github.com/convhost/convhost/test/rawobd"
)

// program builds the command, once. Its directory is removed when the tests end.
var program = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "convhost-judges-")
	if err != nil {
		return "", err
	}
	built = dir
	exe := filepath.Join(dir, "convhost")
	out, err := exec.Command("go", "build", "-o", exe, "../../cmd/convhost").CombinedOutput()
	os.Stderr.Write(out)
	return exe, err
})

var built string

func TestMain(m *testing.M) {
	code := m.Run()
	if built != "" {
		os.RemoveAll(built)
	}
	os.Exit(code)
}

// attacher runs the command with a state directory of its own, and looks for what it leaves.
type attacher struct {
	t      testing.TB
	exe    string
	state  string
	format string
}

func newAttacher(t testing.TB) *attacher {
	t.Helper()
	judge.Root(t)
	for _, b := range blockdev.Backends() {
		if b.Name == "fuse" && b.Err != nil {
			judge.Missing(t, b.Err.Error())
		}
	}
	exe, err := program()
	if err != nil {
		t.Fatal(err)
	}
	a := &attacher{t: t, exe: exe, state: t.TempDir(), format: "overlaybd"}
	t.Cleanup(a.nothingLeft)
	return a
}

// used lists the loop devices that are ours.
func (a *attacher) used() string {
	out, _ := judge.Try("", judge.Tool(a.t, "losetup"), "--list", "--noheadings", "--output", "BACK-FILE")
	var ours []string
	for l := range strings.Lines(out) {
		if strings.Contains(l, a.state) {
			ours = append(ours, l)
		}
	}
	return strings.Join(ours, "")
}

// nothingLeft waits for the kernel's last step and then wants no mount, loop device, process or file.
func (a *attacher) nothingLeft() {
	a.t.Helper()
	a.try("detach", "--all", "--force") // after a failed test
	for range 40 {
		if a.used() == "" {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	if l := a.used(); l != "" {
		a.t.Errorf("loop devices are left: %s", l)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || bytes.Contains(mounts, []byte(a.state)) {
		a.t.Errorf("mounts are left, or %v:\n%s", err, mounts)
	}
	if files, _ := os.ReadDir(a.state); len(files) > 0 {
		a.t.Errorf("files are left: %v", files)
	}
	p := ""
	for range 40 { // it detaches before it ends
		if p, _ = judge.Try("", judge.Tool(a.t, "pgrep"), "-f", a.state); strings.TrimSpace(p) == "" {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	a.t.Errorf("processes are left: %s", p)
}

func (a *attacher) try(args ...string) (string, error) {
	cmd := exec.Command(a.exe, append(args, "--state-dir", a.state, "--json", "--cache-dir", "", "--plugin-dir", a.t.TempDir())...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return stderr.String(), err
	}
	return string(out), nil
}

func (a *attacher) run(args ...string) string {
	a.t.Helper()
	out, err := a.try(args...)
	if err != nil {
		a.t.Fatalf("convhost %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// attach attaches an image and returns what is said of it.
func (a *attacher) attach(image string, args ...string) (info host.AttachmentInfo) {
	a.t.Helper()
	out := a.run(append([]string{"attach", a.format, image}, args...)...)
	if err := json.Unmarshal([]byte(out), &info); err != nil {
		a.t.Fatalf("%v: %s", err, out)
	}
	return info
}

// code is try for a command that must fail with an exit code.
func (a *attacher) code(want int, args ...string) {
	a.t.Helper()
	out, err := a.try(args...)
	if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != want {
		a.t.Errorf("convhost %s: %v, want exit code %d\n%s", strings.Join(args, " "), err, want, out)
	}
}

// files compares a mounted tree with the source's layers.
func (a *attacher) files(dir string, tree *flatten.Tree, o flatten.CompareOptions) {
	a.t.Helper()
	all := slices.DeleteFunc(mountRecords(a.t, dir), func(r flatten.Record) bool { return r.Path == "lost+found" })
	report(a.t, flatten.Compare(tree.Records(), slices.Values(all), o))
}

// Every attribute of every name of an attached image is that of its source, and e2fsck finds nothing on the device.
func TestAttach(t *testing.T) {
	h := newHost(t)
	fsck := judge.Tool(t, "e2fsck")
	check := func(format, name, ref, platform string) {
		t.Run(format+" "+name, func(t *testing.T) {
			a := newAttacher(t)
			a.format = format
			out := convertTo(t, h, format, ref, platform, nil)
			for _, runtime := range []string{"native", "inprocess"} {
				dir := filepath.Join(t.TempDir(), "new")
				info := a.attach(out, "--mount", dir, "--runtime", runtime)
				a.files(dir, sourceTree(t, ref, platform), flatten.CompareOptions{})
				if !strings.Contains(judge.Run(t, "ls", "-lR", dir), "total") {
					t.Error("ls lists nothing")
				}
				if err := os.WriteFile(filepath.Join(dir, "new"), nil, 0o600); err == nil {
					t.Error("a read-only mount was written")
				}
				a.run("detach", dir)
				if _, err := os.Stat(dir); !os.IsNotExist(err) {
					t.Errorf("the mount point, which was made for it, is there: %v", err)
				}
				info = a.attach(out, "--device", "--runtime", runtime)
				fsckClean(t, judge.Run(t, fsck, "-fn", info.Device))
				a.run("detach", info.Device)
			}
		})
	}
	for _, format := range []string{"overlaybd", "turboci"} {
		for _, tag := range []string{"kitchen", "special", "nodata", "one"} {
			check(format, tag, ext4Source(t, tag), "")
		}
		check(format, "demo", demo+":demo", "linux/amd64")
		t.Run(format+" debian", func(t *testing.T) { check(format, "", debian(t), "") })
	}
}

// What upstream's tools made is attached too, and its files have the bytes of the tars. Attributes are not compared: the tools drop
// fractions of seconds, rewrite symlinks, and store access control lists that the kernel cannot read.
func TestAttachUpstream(t *testing.T) {
	dir := filepath.Join(judge.Testdata(t), "overlaybd", "upstream")
	a := newAttacher(t)
	d := ocidir.New(t)
	tree := flatten.New(flatten.Options{})
	var layers []ocidir.Layer
	for _, name := range []string{"layer1", "layer2"} {
		b := read(t, filepath.Join(dir, name+".overlaybd"))
		layers = append(layers, ocidir.Layer{
			Bytes: b, DiffID: digest.FromBytes(b), MediaType: "application/vnd.oci.image.layer.v1.tar",
			Annotations: map[string]string{"containerd.io/snapshot/overlaybd/blob-digest": "sha256:" + strings.Repeat("0", 64)},
		})
		plain := ocidir.New(t)
		plain.Image("x", ocidir.Plain(read(t, filepath.Join(dir, name+".tar"))))
		sourceLayers(t, plain.Path+":x", "")[0].apply(t, tree)
	}
	d.Image("out", layers...)
	mount := t.TempDir()
	a.attach(d.Path, "--mount", mount)
	files := 0
	for r := range tree.Records() {
		name := filepath.Join(mount, r.Path)
		st, err := os.Lstat(name)
		if err != nil || r.Kind != abi.KindRegular {
			if err != nil {
				t.Error(err)
			}
			continue
		}
		if got, err := sum(name); err != nil || got != r.SHA256 || st.Size() != r.Size {
			t.Errorf("%s: %d bytes with digest %x, %v; want %d with %x", r.Path, st.Size(), got, err, r.Size, r.SHA256)
		}
		files++
	}
	if files == 0 {
		t.Error("no file was compared")
	}
	a.run("detach", mount)
}

// A writable layer keeps what was written, for this image alone and for one attachment at a time.
func TestAttachWritable(t *testing.T) {
	a := newAttacher(t)
	h := newHost(t)
	out := convertTo(t, h, "overlaybd", ext4Source(t, "kitchen"), "", nil)
	other := convertTo(t, h, "overlaybd", ext4Source(t, "nodata"), "", nil)
	dir, upper := t.TempDir(), filepath.Join(t.TempDir(), "upper")
	body := kitchen.Noise(1, 20<<20)
	write := func(name string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), body, 0o640); err != nil {
			t.Fatal(err)
		}
	}
	has := func(name string, want bool) {
		t.Helper()
		if b, err := os.ReadFile(filepath.Join(dir, name)); (err == nil) != want || want && !bytes.Equal(b, body) {
			t.Errorf("%s has %d bytes, %v", name, len(b), err)
		}
	}
	a.attach(out, "--mount", dir, "--writable") // is dropped
	write("dropped")
	a.run("detach", dir)
	a.attach(out, "--mount", dir, "--upper", upper)
	has("dropped", false)
	write("kept")
	write("removed")
	a.code(9, "attach", "overlaybd", out, "--upper", upper)
	a.run("detach", dir)
	a.code(2, "attach", "overlaybd", other, "--upper", upper)
	a.attach(out, "--mount", dir, "--upper", upper)
	has("kept", true)
	if err := os.Remove(filepath.Join(dir, "removed")); err != nil {
		t.Fatal(err)
	}
	a.run("detach", dir)
	info := a.attach(out, "--device", "--upper", upper)
	fsckClean(t, judge.Run(t, judge.Tool(t, "e2fsck"), "-fn", info.Device))
	a.run("detach", info.ID)
	a.attach(out, "--mount", dir) // the image itself did not change
	has("kept", false)
	a.files(dir, sourceTree(t, ext4Source(t, "kitchen"), ""), flatten.CompareOptions{})
	a.run("detach", dir)
}

// What a killed process leaves, another removes: every process of it is killed, at every step of a writable attachment.
func TestAttachKilled(t *testing.T) {
	a := newAttacher(t)
	out := convertTo(t, newHost(t), "overlaybd", ext4Source(t, "kitchen"), "", nil)
	for _, whom := range []string{"host", "plugin"} {
		for _, args := range [][]string{{"--device"}, {"--mount", filepath.Join(t.TempDir(), "m")}, {"--mount", t.TempDir(), "--writable"}} {
			info := a.attach(out, args...)
			pid := info.Process
			if whom == "plugin" {
				pid = child(t, pid)
			}
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			if whom == "host" {
				a.gone(info.ID)
			}
			a.run("detach", info.ID)
			a.code(8, "detach", info.ID)
			if a.used() != "" {
				t.Errorf("%s killed, %v: loop devices are left", whom, args)
			}
		}
	}
}

// gone waits until the list says that nobody serves an attachment.
func (a *attacher) gone(id string) {
	a.t.Helper()
	for range 100 {
		var doc struct{ Attachments []host.AttachmentInfo }
		if err := json.Unmarshal([]byte(a.run("attachments")), &doc); err != nil {
			a.t.Fatal(err)
		}
		for _, at := range doc.Attachments {
			if at.ID == id && !at.Serving {
				return
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	a.t.Errorf("%s is listed as served", id)
}

// child returns the process that another one started.
func child(t testing.TB, pid int) int {
	t.Helper()
	var n int
	for _, p := range strings.Fields(judge.Run(t, judge.Tool(t, "pgrep"), "-P", strconv.Itoa(pid))) {
		if err := json.Unmarshal([]byte(p), &n); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// An attachment in use stays, and goes with force. So does one whose process gets SIGTERM.
func TestAttachBusy(t *testing.T) {
	a := newAttacher(t)
	out := convertTo(t, newHost(t), "overlaybd", ext4Source(t, "one"), "", nil)
	for _, how := range []string{"force", "signal"} {
		dir := t.TempDir()
		info := a.attach(out, "--mount", dir)
		f, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		a.code(9, "detach", dir)
		if _, err := os.ReadDir(dir); err != nil {
			t.Errorf("after a refused detach: %v", err)
		}
		if how == "force" {
			a.run("detach", info.ID, "--force")
		} else if err := syscall.Kill(info.Process, syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		for range 200 {
			if files, _ := os.ReadDir(a.state); len(files) == 0 {
				break
			}
			time.Sleep(50 * time.Millisecond)
		}
		f.Close()
		if files, err := os.ReadDir(dir); err != nil || len(files) > 0 {
			t.Errorf("%s: the mount point holds %v, %v", how, files, err)
		}
	}
}

// countingRegistry is a registry in this process that counts the bytes it sends.
func countingRegistry(t testing.TB) (name string, sent *atomic.Int64) {
	sent = new(atomic.Int64)
	reg := olareg.New(config.Config{Storage: config.ConfigStorage{StoreType: config.StoreMem}, Log: slog.New(slog.DiscardHandler)})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		reg.ServeHTTP(&countingWriter{w, sent}, r)
	}))
	t.Cleanup(func() {
		srv.Close()
		reg.Close()
	})
	return strings.TrimPrefix(srv.URL, "http://"), sent
}

type countingWriter struct {
	http.ResponseWriter
	n *atomic.Int64
}

func (c *countingWriter) Write(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	return c.ResponseWriter.Write(p)
}

// From a registry only what is read is fetched.
func TestAttachRegistry(t *testing.T) {
	a := newAttacher(t)
	name, sent := countingRegistry(t)
	large := ocidir.New(t)
	large.Image("large", ocidir.Gzip(bigTar(t)))
	h := newHost(t)
	ref := "docker://" + name + "/app:1"
	if _, err := h.Convert(t.Context(), host.ConvertRequest{Source: "oci:" + large.Path + ":large", Targets: []host.Target{{Format: "overlaybd", Dest: ref}}}); err != nil {
		t.Fatal(err)
	}
	sent.Store(0)
	dir := t.TempDir()
	a.attach(ref, "--mount", dir)
	judge.Run(t, "ls", "-lR", dir)
	t.Logf("attaching and listing fetched %d bytes", sent.Load())
	if n := sent.Load(); n > 4<<20 {
		t.Errorf("attaching and listing fetched %d bytes", n)
	}
	a.files(dir, sourceTree(t, large.Path+":large", ""), flatten.CompareOptions{})
	if n := sent.Load(); n < 30<<20 || n > 40<<20 {
		t.Errorf("reading everything fetched %d bytes", n)
	}
	config := filepath.Join(t.TempDir(), "config.v1.json")
	a.run("attach", "overlaybd", ref, "--write-config", config)
	if c := string(read(t, config)); !strings.Contains(c, `"repoBlobUrl": "http://`+name+`/v2/app/blobs"`) || !strings.Contains(c, `"digest": "sha256:`) {
		t.Errorf("configuration for the runtime: %s", c)
	}
	a.run("detach", dir)
}

// bigTar is a layer of 32 MiB that does not compress.
func bigTar(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	add := func(h tar.Header, body []byte) {
		h.ModTime, h.Format, h.Size = kitchen.Mtime, tar.FormatPAX, int64(len(body))
		err := w.WriteHeader(&h)
		if err == nil {
			_, err = w.Write(body)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	add(tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o755}, nil)
	for i := range 32 {
		add(tar.Header{Typeflag: tar.TypeReg, Name: "file" + strconv.Itoa(i), Mode: 0o644}, kitchen.Noise(uint64(i), 1<<20))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// An embedder attaches in its own process, and closing its host takes the attachment away.
func TestAttachEmbedded(t *testing.T) {
	a := newAttacher(t)
	out := convertTo(t, newHost(t), "overlaybd", ext4Source(t, "one"), "", nil)
	h, err := host.New(host.WithStateDir(a.state), host.WithBuiltin(host.Builtin{Name: "overlaybd", InProcess: sdk.InProcess(overlaybd.New())}))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	at, err := h.Attach(ctx, host.AttachRequest{Image: "oci:" + out, Target: dir})
	if err != nil {
		t.Fatal(err)
	}
	cancel() // the attachment lives on
	a.files(dir, sourceTree(t, ext4Source(t, "one"), ""), flatten.CompareOptions{})
	if err := h.Close(); err != nil {
		t.Error(err)
	}
	<-at.Done()
}

// BenchmarkAttach reads a file of 32 MiB through the device, with nothing in the kernel's cache; the bytes come from the
// files of a layout.
func BenchmarkAttach(b *testing.B) {
	a := newAttacher(b)
	large := ocidir.New(b)
	large.Image("large", ocidir.Gzip(bigTar(b)))
	out := convertTo(b, newHost(b), "overlaybd", large.Path+":large", "", nil)
	info := a.attach(out, "--device")
	defer a.run("detach", info.ID)
	b.SetBytes(64 << 20)
	buf := make([]byte, 1<<20)
	for b.Loop() {
		judge.Run(b, judge.Tool(b, "blockdev"), "--flushbufs", info.Device)
		f, err := os.Open(info.Device)
		if err != nil {
			b.Fatal(err)
		}
		for off := int64(0); off < 64<<20; off += int64(len(buf)) {
			if _, err := f.ReadAt(buf, off); err != nil {
				b.Fatal(err)
			}
		}
		f.Close()
	}
}

// Upstream's tools read the configuration that is written for them, and seal a writable layer of ours: what was written is
// there.
func TestAttachTools(t *testing.T) {
	u := newOBDTools(t)
	a := newAttacher(t)
	c := convertChain(t, newHost(t), ext4Source(t, "kitchen"), "", nil)
	image := filepath.Dir(filepath.Dir(filepath.Dir(c.blobs[0])))
	config, upper, dir := filepath.Join(t.TempDir(), "config.v1.json"), t.TempDir(), t.TempDir()
	a.run("attach", "overlaybd", image, "--write-config", config)
	merged, out := newDevice(t), u.file("merged")
	u.run("overlaybd-merge", config, out)
	merged.Apply(rawobd.LSMT(read(t, out)), nil)
	sameDevices(t, merged, stacked(t, c.blobs...))

	a.attach(image, "--mount", dir, "--upper", upper)
	body := kitchen.Noise(2, 3<<20)
	for _, name := range []string{"written", "written"} { // twice: blocks are written again
		if err := os.WriteFile(filepath.Join(dir, name), body, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	a.run("detach", dir)
	sealed := u.file("sealed")
	u.run("overlaybd-commit", filepath.Join(upper, "writable_data"), filepath.Join(upper, "writable_index"), sealed, "-z", "-t")
	dev := stacked(t, append(slices.Clone(c.blobs), sealed)...)
	fsckClean(t, judge.Run(t, judge.Tool(t, "e2fsck"), "-fn", dev.File.Name()))
	if got := read(t, filepath.Join(mounted(t, "ext4", "ro", loop(t, dev.File.Name())), "written")); !bytes.Equal(got, body) {
		t.Errorf("the sealed layer has %d bytes of the new file", len(got))
	}
}

// A process that hangs, with data that was not written yet, keeps nobody from detaching by force: it is ended.
func TestAttachHung(t *testing.T) {
	a := newAttacher(t)
	out := convertTo(t, newHost(t), "overlaybd", ext4Source(t, "one"), "", nil)
	dir := t.TempDir()
	info := a.attach(out, "--mount", dir, "--writable")
	if err := os.WriteFile(filepath.Join(dir, "unwritten"), kitchen.Noise(3, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, pid := range []int{info.Process, child(t, info.Process)} {
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	a.run("detach", info.ID, "--force")
}

package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/graph/graphtest"
	"github.com/convhost/convhost/sdk"
)

// shelf is a copier that attaches images without the help of a system: its device is a directory. A file "ask" in it with part,
// offset and length becomes a file "told" with the bytes; Detach removes the file "on", and Attach sees that.
type shelf struct{ copier }

func newShelf() *shelf {
	return &shelf{copier{name: "shelf", options: []abi.OptionSpec{
		{Name: "how", Values: []string{"", "refuse", "panic", "exit", "hang", "alone", "config", "twice", "name", "busy", "deaf"}}}}}
}

func (s *shelf) Attach(ctx context.Context, a *sdk.Attach) (*abi.AttachResponse, error) {
	on := filepath.Join(a.StateDir, "on")
	if err := os.WriteFile(on, []byte(a.Options["how"]), 0o600); err != nil {
		return nil, err
	}
	resp := &abi.AttachResponse{ID: a.ID, Device: a.StateDir, Runtime: []byte(strings.Join(a.Locations, " "))}
	switch a.Options["how"] {
	case "refuse":
		return nil, abi.Errorf(abi.ErrUnsupported, "the system has no shelves")
	case "panic":
		panic("no shelf")
	case "hang":
		<-ctx.Done()
		return nil, ctx.Err()
	case "alone":
		return resp, nil
	case "config":
		return &abi.AttachResponse{Runtime: resp.Runtime}, nil
	case "name":
		resp.ID = "mine"
	}
	parts := make([]*sdk.Blob, len(a.Parts))
	for i := range parts {
		var err error
		if parts[i], err = sdk.OpenBlob(a, abi.RolePart, i); err != nil {
			return nil, err
		}
	}
	if err := a.Ready(resp); err != nil {
		return nil, err
	}
	if a.Options["how"] == "twice" {
		return nil, a.Ready(resp)
	}
	if a.Options["how"] == "exit" {
		os.Exit(3)
	}
	for ctx.Err() == nil {
		if _, err := os.Stat(on); err != nil && a.Options["how"] != "deaf" {
			return resp, nil
		}
		s.answer(a.StateDir, parts)
		time.Sleep(5 * time.Millisecond)
	}
	return nil, ctx.Err()
}

func (s *shelf) answer(dir string, parts []*sdk.Blob) {
	b, err := os.ReadFile(filepath.Join(dir, "ask"))
	if err != nil {
		return
	}
	var part, off, n int
	fmt.Sscan(string(b), &part, &off, &n)
	var bufs [4][]byte
	errs := make([]error, len(bufs))
	var wg sync.WaitGroup
	for i := range bufs { // at the same time, as a device is read
		bufs[i] = make([]byte, n)
		wg.Go(func() { _, errs[i] = parts[part].ReadAt(bufs[i], int64(off)) })
	}
	wg.Wait()
	buf := bufs[0]
	if err := errors.Join(errs...); err != nil {
		buf = []byte("error: " + err.Error())
	}
	os.Remove(filepath.Join(dir, "ask"))
	os.WriteFile(filepath.Join(dir, "new"), buf, 0o600)
	os.Rename(filepath.Join(dir, "new"), filepath.Join(dir, "told"))
}

func (s *shelf) Detach(_ context.Context, d *abi.DetachRequest) error {
	on := filepath.Join(d.StateDir, "on")
	how, err := os.ReadFile(on)
	if err != nil {
		return nil
	}
	if string(how) == "busy" && !d.Force {
		return abi.Errorf(abi.ErrExists, "somebody reads on the shelf")
	}
	return os.Remove(on)
}

// ask reads through a shelf.
func askShelf(t *testing.T, a *Attachment, part, off, n int) string {
	t.Helper()
	told := filepath.Join(a.Device, "told")
	os.Remove(told)
	if err := os.WriteFile(filepath.Join(a.Device, "q"), fmt.Appendf(nil, "%d %d %d", part, off, n), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(a.Device, "q"), filepath.Join(a.Device, "ask")); err != nil {
		t.Fatal(err)
	}
	for range 2000 {
		if b, err := os.ReadFile(told); err == nil {
			return string(b)
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatal("the shelf does not answer")
	return ""
}

// shelfEnv is a host with shelves, a state directory, and an image that stands on one.
func shelfEnv(t *testing.T) (e *env, state, image string) {
	state = t.TempDir()
	e = newEnv(t, nil, WithStateDir(state), WithBuiltin(Builtin{Name: "shelf", InProcess: sdk.InProcess(newShelf()), Native: []string{testExe(t), "shelf"}}))
	s := graphtest.NewStore()
	image = e.ref("image")
	e.convert(e.source(s, s.Image(threeLayers(s))), "shelf", image)
	return e, state, image
}

func TestAttach(t *testing.T) {
	for _, rt := range []Runtime{RuntimeInProcess, RuntimeNative} {
		t.Run(string(rt), func(t *testing.T) {
			e, state, image := shelfEnv(t)
			a, err := e.Attach(t.Context(), AttachRequest{Image: image, Format: "shelf", Runtime: rt, ID: "a-1"})
			e.ok(err)
			img := e.image(image)
			layers := img.Root.Manifest.Layers
			if len(layers) < 2 {
				t.Fatal("the image has too few layers")
			}
			for i, l := range layers {
				if got, want := askShelf(t, a, i, 100, 300), string(img.blob(l)[100:400]); got != want {
					t.Errorf("layer %d: %q, want %q", i, got, want)
				}
			}
			if n := len(strings.Fields(string(a.Config))); n != len(layers) || !strings.HasPrefix(string(a.Config), "file:///") {
				t.Errorf("locations are %q", a.Config)
			}
			list, err := e.Attachments(t.Context())
			e.ok(err)
			if len(list) != 1 || list[0].ID != "a-1" || !list[0].Serving || list[0].Process != os.Getpid() || list[0].Device != a.Device {
				t.Errorf("listed are %+v", list)
			}
			_, err = e.Attach(t.Context(), AttachRequest{Image: image, Runtime: rt, ID: "a-1"})
			want(t, err, abi.ErrExists)
			if got := askShelf(t, a, 0, 0, 4); len(got) != 4 {
				t.Errorf("after the second attach: %q", got)
			}
			e.ok(e.Detach(t.Context(), DetachRequest{ID: a.Device})) // by its device
			<-a.Done()
			e.ok(a.Err())
			e.empty(state)
			want(t, e.Detach(t.Context(), DetachRequest{ID: "a-1"}), abi.ErrNotFound)
		})
	}
}

// What a plugin does wrong, or refuses, leaves nothing.
func TestAttachFails(t *testing.T) {
	for _, rt := range []Runtime{RuntimeInProcess, RuntimeNative} {
		for how, class := range map[string]abi.Class{"refuse": abi.ErrUnsupported, "panic": abi.ErrPlugin, "name": abi.ErrPlugin} {
			t.Run(string(rt)+" "+how, func(t *testing.T) {
				e, state, image := shelfEnv(t)
				_, err := e.Attach(t.Context(), AttachRequest{Image: image, Runtime: rt, Options: map[string]string{"how": how}})
				want(t, err, class)
				e.empty(state)
			})
		}
	}
	e, state, image := shelfEnv(t)
	for name, c := range map[string]struct {
		req   AttachRequest
		class abi.Class
	}{
		"option":   {AttachRequest{Image: image, Options: map[string]string{"colour": "red"}}, abi.ErrInvalid},
		"value":    {AttachRequest{Image: image, Options: map[string]string{"how": "slowly"}}, abi.ErrInvalid},
		"no image": {AttachRequest{Image: "oci:/nowhere:x"}, abi.ErrNotFound},
		"plugin":   {AttachRequest{Image: image, Format: "box"}, abi.ErrNotFound},
		"ID":       {AttachRequest{Image: image, ID: "../x"}, abi.ErrInvalid},
		"plain":    {AttachRequest{Image: demo}, abi.ErrUnsupported},
		"cannot":   {AttachRequest{Image: demo, Format: "shelf"}, abi.ErrUnsupported},
	} {
		_, err := e.Attach(t.Context(), c.req)
		if t.Log(name, err); abi.ClassOf(err) != c.class {
			t.Errorf("%s: %v, want class %v", name, err, c.class)
		}
		e.empty(state)
	}
}

// A plugin that cannot attach says so.
func TestAttachUnsupported(t *testing.T) {
	e := newEnv(t, []sdk.Plugin{&copier{}}, WithStateDir(t.TempDir()))
	s := graphtest.NewStore()
	e.convert(e.source(s, s.Image(threeLayers(s))), "copy", e.ref("image"))
	_, err := e.Attach(t.Context(), AttachRequest{Image: e.ref("image")})
	want(t, err, abi.ErrUnsupported)
}

// Who gives up before the image is attached, or asks for information only, leaves nothing.
func TestAttachEndsEarly(t *testing.T) {
	e, state, image := shelfEnv(t)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := e.Attach(ctx, AttachRequest{Image: image, Options: map[string]string{"how": "hang"}})
	want(t, err, abi.ErrTimeout)
	e.empty(state)
	a, err := e.Attach(t.Context(), AttachRequest{Image: image, Options: map[string]string{"how": "config"}})
	e.ok(err)
	if a.ID != "" || len(a.Config) == 0 {
		t.Errorf("%+v", a)
	}
	<-a.Done()
	e.empty(state)
}

// An attachment that its system serves by itself lives without the operation.
func TestAttachAlone(t *testing.T) {
	e, state, image := shelfEnv(t)
	a, err := e.Attach(t.Context(), AttachRequest{Image: image, Options: map[string]string{"how": "alone"}})
	e.ok(err)
	<-a.Done()
	e.ok(a.Err())
	list, err := e.Attachments(t.Context())
	e.ok(err)
	if len(list) != 1 || list[0].Device == "" || list[0].Serving {
		t.Errorf("%+v", list)
	}
	e.ok(e.Detach(t.Context(), DetachRequest{ID: a.ID}))
	e.empty(state)
}

// An attachment in use stays, unless it is forced; a closed host takes all away.
func TestDetachBusy(t *testing.T) {
	e, state, image := shelfEnv(t)
	busy := map[string]string{"how": "busy"}
	a, err := e.Attach(t.Context(), AttachRequest{Image: image, Options: busy, Target: filepath.Join(t.TempDir(), "m")})
	e.ok(err)
	want(t, e.Detach(t.Context(), DetachRequest{ID: a.Target}), abi.ErrExists)
	if got := askShelf(t, a, 0, 0, 4); len(got) != 4 {
		t.Errorf("after a refused detach: %q", got)
	}
	e.ok(e.Detach(t.Context(), DetachRequest{ID: a.ID, Force: true}))
	e.empty(state)
	a, err = e.Attach(t.Context(), AttachRequest{Image: image, Options: busy})
	e.ok(err)
	e.ok(e.Close())
	<-a.Done()
	e.empty(state)
	_, err = e.Attach(t.Context(), AttachRequest{Image: image})
	want(t, err, abi.ErrInvalid)
}

// A process that dies leaves an attachment that another one lists and removes.
func TestDetachOfDead(t *testing.T) {
	e, state, image := shelfEnv(t)
	a, err := e.Attach(t.Context(), AttachRequest{Image: image, Runtime: RuntimeNative, Options: map[string]string{"how": "exit"}, ID: "dead"})
	if err == nil { // it was ready before it died
		<-a.Done()
		want(t, a.Err(), abi.ErrPlugin)
		if list, err := e.Attachments(t.Context()); err != nil || len(list) != 1 || list[0].Serving {
			t.Errorf("%+v, %v", list, err)
		}
		other, err := New(WithStateDir(state), WithBuiltin(builtin(newShelf())))
		e.ok(err)
		defer other.Close()
		e.ok(other.Detach(t.Context(), DetachRequest{ID: "dead"})) // with another runtime of the plugin
	}
	e.empty(state)
}

// Another host ends an attachment that lives: its server notices.
func TestDetachFromElsewhere(t *testing.T) {
	e, state, image := shelfEnv(t)
	a, err := e.Attach(t.Context(), AttachRequest{Image: image, ID: "here"})
	e.ok(err)
	other, err := New(WithStateDir(state), WithBuiltin(builtin(newShelf())))
	e.ok(err)
	defer other.Close()
	e.ok(other.Detach(t.Context(), DetachRequest{ID: "here"}))
	<-a.Done()
	e.ok(a.Err())
	e.empty(state)
}

// What is not an attachment in the state directory is left alone.
func TestStateDirWithOtherThings(t *testing.T) {
	e, state, image := shelfEnv(t)
	e.ok(os.WriteFile(filepath.Join(state, "file"), nil, 0o600))
	e.ok(os.MkdirAll(filepath.Join(state, "dir", "deep"), 0o700))
	e.ok(os.MkdirAll(filepath.Join(state, "wrong"), 0o700))
	e.ok(os.WriteFile(filepath.Join(state, "wrong", "attachment.json"), []byte(`{"id":"other"}`), 0o600))
	a, err := e.Attach(t.Context(), AttachRequest{Image: image})
	e.ok(err)
	list, err := e.Attachments(t.Context())
	e.ok(err)
	if !slices.ContainsFunc(list, func(i AttachmentInfo) bool { return i.ID == a.ID }) || len(list) != 1 {
		t.Errorf("%+v", list)
	}
	e.ok(e.Detach(t.Context(), DetachRequest{ID: a.ID}))
	left, err := os.ReadDir(state)
	e.ok(err)
	if len(left) != 3 {
		t.Errorf("%v are left", left)
	}
}

// A read that fails is an error for its reader; when the bytes are back, so is the device.
func TestAttachSurvivesErrors(t *testing.T) {
	for _, rt := range []Runtime{RuntimeInProcess, RuntimeNative} {
		t.Run(string(rt), func(t *testing.T) {
			e, _, image := shelfEnv(t)
			a, err := e.Attach(t.Context(), AttachRequest{Image: image, Runtime: rt})
			e.ok(err)
			layer := e.image(image).Root.Manifest.Layers[0]
			blob := blobFile(image, layer)
			b, err := os.ReadFile(blob)
			e.ok(err)
			if got := askShelf(t, a, 0, 5, 20); got != string(b[5:25]) {
				t.Errorf("before: %q, want %q", got, b[5:25])
			}
			e.ok(os.Truncate(blob, 10))
			if got := askShelf(t, a, 0, 5, 20); !strings.HasPrefix(got, "error: ") {
				t.Errorf("a cut blob gives %q", got)
			}
			f, err := os.OpenFile(blob, os.O_WRONLY, 0)
			e.ok(err)
			_, err = f.Write(b)
			e.ok(errors.Join(err, f.Close()))
			if got := askShelf(t, a, 0, 5, 20); got != string(b[5:25]) {
				t.Errorf("afterwards: %q, want %q", got, b[5:25])
			}
			e.ok(e.Detach(t.Context(), DetachRequest{ID: a.ID}))
		})
	}
}

func blobFile(ref string, d ocispec.Descriptor) string {
	dir := strings.TrimSuffix(strings.TrimPrefix(ref, "oci:"), ":tag")
	return filepath.Join(dir, "blobs", "sha256", d.Digest.Encoded())
}

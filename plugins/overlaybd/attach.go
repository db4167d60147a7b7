package overlaybd

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/plugins/overlaybd/blockdev"
	"github.com/convhost/convhost/sdk"
)

// attachOptions are those of Attach; a conversion does not look at them.
func attachOptions() []abi.OptionSpec {
	return []abi.OptionSpec{
		{Name: "device", Default: "auto", Values: []string{"auto", "fuse", "nbd", "socket", "none"}, Help: "attach: how the device is made: fuse, a loop device over a FUSE file; nbd, by the kernel's NBD client; " +
			"socket, an NBD server for other programs; none, only tell what overlaybd's own runtime needs"},
		{Name: "writable", Default: "false", Values: []string{"true", "false"}, Help: "attach: let the device be written; what changes is dropped at the end, or kept in upper"},
		{Name: "upper", Help: "attach: directory that keeps what changes, as a writable overlaybd layer; implies writable"},
		{Name: "mount-options", Help: "attach: options for mounting, with commas; nosuid and nodev hold unless suid and dev are given"},
	}
}

// checkAttachOptions refuses values that those of Attach cannot have, for operations that do not look at them.
func checkAttachOptions(o map[string]string) error {
	for _, spec := range attachOptions() {
		if v, ok := o[spec.Name]; ok && len(spec.Values) > 0 && !slices.Contains(spec.Values, v) {
			return abi.Errorf(abi.ErrInvalid, "option %s=%s: want one of %s", spec.Name, v, strings.Join(spec.Values, ", "))
		}
	}
	return nil
}

// attachment is what the options of an Attach ask for.
type attachment struct {
	backend  string // "": the best
	none     bool
	writable bool
	upper    string
	mount    mountOptions
}

func parseAttach(a *abi.AttachRequest) (o attachment, err error) {
	switch o.backend = a.Options["device"]; o.backend {
	case "auto":
		o.backend = ""
	case "none":
		o.none = true
	case "socket":
		if a.Target != "" {
			return o, abi.Errorf(abi.ErrInvalid, "option device=socket makes no device: nothing can be mounted at %s", a.Target)
		}
	}
	if o.writable, err = sdk.Choice(a.Options, "writable", "false", yesNo); err != nil {
		return o, err
	}
	if o.upper = a.Options["upper"]; o.upper != "" {
		o.writable = true
		if !filepath.IsAbs(o.upper) {
			return o, abi.Errorf(abi.ErrInvalid, "option upper=%s: want an absolute path", o.upper)
		}
	}
	o.mount, err = parseMount(a.Options["mount-options"], !o.writable)
	if err == nil && !o.none && !filepath.IsAbs(a.StateDir) {
		err = abi.Errorf(abi.ErrInvalid, "state directory %q is not an absolute path", a.StateDir)
	}
	return o, err
}

// attachState is written down in the state directory before anything is made.
type attachState struct {
	Device blockdev.State `json:"device"`
	Target string         `json:"target,omitempty"` // mount point
	Made   bool           `json:"made,omitempty"`   // the mount point was made for it
	Upper  string         `json:"upper,omitempty"`  // directory of the writable layer, if it goes with the attachment

	dir string
}

func stateFile(dir string) string { return filepath.Join(dir, "state.json") }

func (s *attachState) save() error {
	b, err := json.Marshal(s)
	if err != nil {
		return abi.Errorf(abi.ErrInternal, "%w", err)
	}
	aside := stateFile(s.dir) + ".new"
	if err = os.WriteFile(aside, b, 0o600); err == nil {
		err = os.Rename(aside, stateFile(s.dir))
	}
	return fileError(err)
}

func fileError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrPermission):
		return abi.Errorf(abi.ErrDenied, "%w", err)
	case errors.Is(err, fs.ErrNotExist):
		return abi.Errorf(abi.ErrNotFound, "%w", err)
	}
	return abi.Errorf(abi.ErrIO, "%w", err)
}

// Attach implements sdk.Attacher: the layers become a block device, with a writable layer on it if that was asked for,
// and the file system on it is mounted.
func (plugin) Attach(ctx context.Context, a *sdk.Attach) (*abi.AttachResponse, error) {
	o, err := parseAttach(&a.AttachRequest)
	if err != nil {
		return nil, err
	}
	image, err := openStack(a, abi.RolePart, a.Parts, layersOf(a.Parts))
	if err != nil {
		return nil, err
	}
	if err := image.inOrder(); err != nil {
		return nil, err
	}
	resp := &abi.AttachResponse{ID: a.ID}
	if resp.Runtime, err = deviceConfig(&a.AttachRequest, o); err != nil {
		return nil, err
	}
	s := &attachState{dir: a.StateDir}
	if o.none {
		resp.ID = ""
		return resp, emptyUpper(s, image, o)
	}
	if err := s.save(); err != nil {
		return nil, err
	}
	disk, closeLayer, err := openDisk(s, image, o)
	if err != nil {
		image.close()
		return nil, err
	}
	closeDisk := func() error {
		image.close()
		return closeLayer()
	}
	dev, err := s.present(ctx, a, disk, o)
	if err != nil {
		return nil, errors.Join(err, closeDisk())
	}
	resp.Device = dev.Path()
	if err := a.Ready(resp); err != nil {
		return nil, err // the host calls Detach
	}
	select {
	case <-dev.Done():
		return resp, closeDisk()
	case <-ctx.Done(): // the device may still be used until Detach
		go func() {
			<-dev.Done()
			closeDisk()
		}()
		return nil, abi.Errorf(abi.ClassOf(ctx.Err()), "attach: %w", ctx.Err())
	}
}

// present makes the device and mounts it.
func (s *attachState) present(ctx context.Context, a *sdk.Attach, disk blockdev.Disk, o attachment) (blockdev.Device, error) {
	dev, err := blockdev.Open(ctx, blockdev.Config{
		Disk: disk, Dir: s.dir, Label: "convhost-" + a.ID, Backend: o.backend, Log: hostLog(a),
		Save: func(d blockdev.State) error { s.Device = d; return s.save() },
	})
	if err != nil || a.Target == "" {
		return dev, err
	}
	s.Target = a.Target
	if err := s.mount(dev.Path(), disk, o.mount); err != nil {
		return nil, errors.Join(err, dev.Close())
	}
	return dev, nil
}

// patience is how long an attachment that is detached by force may write back what is held in memory.
const patience = 5 * time.Second

// Detach implements sdk.Attacher.
func (plugin) Detach(ctx context.Context, d *abi.DetachRequest) error {
	if !filepath.IsAbs(d.StateDir) {
		return abi.Errorf(abi.ErrInvalid, "state directory %q is not an absolute path", d.StateDir)
	}
	s := &attachState{dir: d.StateDir}
	b, err := os.ReadFile(stateFile(d.StateDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // nothing was made
	} else if err != nil {
		return fileError(err)
	}
	if err := json.Unmarshal(b, s); err != nil {
		return abi.Errorf(abi.ErrCorrupt, "%s: %w", stateFile(d.StateDir), err)
	}
	if d.Force && s.Device.Backend != "" { // unmounting waits for a server that hangs, and cannot be interrupted
		stop := time.AfterFunc(patience, func() { blockdev.Abort(s.Device) })
		defer stop.Stop()
	}
	if s.Target != "" {
		if err := s.unmount(d.Force); err != nil {
			return err
		}
	}
	if s.Device.Backend != "" {
		if err := blockdev.Clean(ctx, s.Device, d.Force); err != nil {
			return err
		}
	}
	if s.Made {
		if err := os.Remove(s.Target); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fileError(err)
		}
	}
	if s.Upper != "" && filepath.Dir(s.Upper) == d.StateDir {
		if err := os.RemoveAll(s.Upper); err != nil {
			return fileError(err)
		}
	}
	if err := os.Remove(stateFile(d.StateDir)); err != nil && !errors.Is(err, fs.ErrNotExist) { // somebody else detaches too
		return fileError(err)
	}
	return nil
}

// hostLog sends records to the host.
func hostLog(h abi.Host) *slog.Logger { return slog.New(&logHandler{host: h}) }

type logHandler struct {
	host   abi.Host
	suffix string
}

// Enabled implements slog.Handler.
func (*logHandler) Enabled(context.Context, slog.Level) bool { return true }

// Handle implements slog.Handler.
func (l *logHandler) Handle(_ context.Context, r slog.Record) error {
	var b strings.Builder
	b.WriteString(r.Message + l.suffix)
	r.Attrs(func(at slog.Attr) bool { b.WriteString(" " + at.Key + "=" + at.Value.String()); return true })
	l.host.Log(int(r.Level), b.String())
	return nil
}

// WithAttrs implements slog.Handler.
func (l *logHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	out := *l
	for _, at := range attrs {
		out.suffix += " " + at.Key + "=" + at.Value.String()
	}
	return &out
}

// WithGroup implements slog.Handler.
func (l *logHandler) WithGroup(string) slog.Handler { return l }

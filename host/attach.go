package host

import (
	"context"
	"crypto/rand"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/cas"
	"github.com/convhost/convhost/host/cas/lockfile"
	"github.com/convhost/convhost/host/graph"
	"github.com/convhost/convhost/internal/session"
)

// AttachRequest asks a plugin to present an image as a block device or a mount.
type AttachRequest struct {
	Image   string
	Select  Selection // must name one image
	Format  string
	Runtime Runtime
	Options map[string]string // of the plugin
	Target  string            // directory to mount at; "" for a device only
	ID      string            // letters, digits and dashes; "" chooses one
	// Only says that this process does nothing but serve the attachment, so that Detach with Force may end it.
	Only bool
}

// AttachmentInfo tells about an attachment, also of another process.
type AttachmentInfo struct {
	ID       string             `json:"id"`
	Format   string             `json:"format"`
	Image    string             `json:"image"`
	Manifest ocispec.Descriptor `json:"manifest"`
	Platform string             `json:"platform,omitempty"`
	Device   string             `json:"device,omitempty"` // "" until it is ready, or where there is none
	Target   string             `json:"target,omitempty"`
	Runtime  Runtime            `json:"runtime"`
	Process  int                `json:"process"` // that serves it
	Only     bool               `json:"only,omitempty"`
	Since    time.Time          `json:"since"`
	Serving  bool               `json:"serving"` // its process lives; if not, reads fail, and Detach cleans
}

// Attachment is an image that this host serves. It is served until it is detached, by anybody, or the host is closed.
type Attachment struct {
	AttachmentInfo
	// Config is what another runtime of the format needs to attach the image, in that runtime's form; nil if there is none.
	Config []byte

	done chan struct{}
	err  error
	stop context.CancelFunc
}

// Done is closed when the attachment is not served any more. Then Err tells why: nil after Detach.
func (a *Attachment) Done() <-chan struct{} { return a.done }

// Err returns why the attachment ended, once Done is closed.
func (a *Attachment) Err() error { return a.err }

// Attach presents an image. It returns when the image can be used, and serves it from then on, in the background and
// whatever becomes of ctx: blocks are read where the image is when they are needed, from a registry by ranges.
//
// What was made outlives a killed process, and is written down in the directory of WithStateDir; Detach removes it, from any
// process. An Attachment whose ID is empty was not attached, because its options asked for Config only.
//
// Errors: ErrUnsupported if the plugin or the system cannot; ErrDenied without the rights; ErrExists if the ID is taken
// or the target in use.
func (h *Host) Attach(ctx context.Context, req AttachRequest) (*Attachment, error) {
	ctx, done, err := h.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	j := &attaching{h: h, req: req, ready: make(chan *abi.AttachResponse, 1)}
	j.ctx, j.stop = context.WithCancel(h.ctx)
	giveUp := context.AfterFunc(ctx, j.stop) // until it is ready
	if err := j.open(); err != nil {
		giveUp()
		j.close()
		if ctx.Err() != nil {
			err = canceled(ctx)
		}
		return nil, err
	}
	a, err := j.start(ctx)
	if !giveUp() && err == nil { // canceled just now: the operation ends
		return nil, j.fail(a, canceled(ctx))
	}
	return a, err
}

// attaching is an attachment from its request to its end.
type attaching struct {
	h      *Host
	req    AttachRequest
	ctx    context.Context // of the operation
	stop   context.CancelFunc
	plugin *plugin
	node   *graph.Node
	place  place
	lock   *lockfile.File
	info   AttachmentInfo
	grants session.Config
	msg    abi.AttachRequest
	ready  chan *abi.AttachResponse
	undo   []func() // frees what was opened, last first
}

func (j *attaching) close() {
	j.stop()
	for _, f := range slices.Backward(j.undo) {
		f()
	}
}

// open opens the image and what else the operation needs.
func (j *attaching) open() error {
	target := j.req.Target
	if target != "" {
		abs, err := filepath.Abs(target)
		if err != nil {
			return abi.Errorf(abi.ErrInvalid, "mount point %s: %w", target, err)
		}
		target = abs
	}
	store, err := cas.OpenEphemeral(j.ctx, j.h.cfg.workDir)
	if err != nil {
		return err
	}
	j.undo = append(j.undo, func() { store.Close() })
	ctx, release, err := store.Lease(j.ctx)
	if err != nil {
		return err
	}
	j.undo = append(j.undo, func() { release() })
	s, err := j.h.openSource(ctx, j.req.Image, store)
	if err != nil {
		return err
	}
	j.undo = append(j.undo, func() { s.close() })
	if err := j.pick(ctx, s); err != nil {
		return err
	}
	if err := j.openParts(ctx, s); err != nil {
		return j.located(err)
	}
	if err := j.reserve(); err != nil {
		return err
	}
	j.info = AttachmentInfo{
		ID: j.place.id, Format: j.plugin.info.Name, Image: j.req.Image, Manifest: j.node.Desc, Platform: platformOf(j.node), Target: target,
		Runtime: j.plugin.info.Runtime, Process: os.Getpid(), Only: j.req.Only, Since: time.Now().UTC().Truncate(time.Second), Serving: true,
	}
	j.msg.Options, j.msg.Target, j.msg.Config = j.req.Options, target, j.node.ConfigNode().Raw
	j.msg.ID, j.msg.StateDir, j.msg.Features = j.place.id, j.place.state(), abi.Features()
	return j.place.write(&record{AttachmentInfo: j.info, Plugin: j.plugin.info.Path})
}

// pick chooses image and plugin.
func (j *attaching) pick(ctx context.Context, s *source) error {
	nodes, err := pickImages(s.graph, j.req.Select, true)
	if err != nil {
		return err
	}
	j.node = nodes[0]
	if j.plugin, err = j.h.pluginFor(ctx, j.node, j.req.Format, j.req.Runtime); err != nil {
		return err
	}
	if j.plugin == nil {
		return abi.Errorf(abi.ErrUnsupported, "%s is not of a format that a plugin here knows: convert it first", j.req.Image)
	}
	if !slices.Contains(j.plugin.info.Description.Ops, abi.OpAttach) {
		return abi.Errorf(abi.ErrUnsupported, "plugin %s cannot attach images", j.plugin.info.Name)
	}
	return checkOptions(&j.plugin.info.Description, j.req.Options)
}

// openParts opens every layer for reading by ranges, or, where that cannot be, fetches it first.
func (j *attaching) openParts(ctx context.Context, s *source) error {
	for i, l := range j.node.Layers() {
		if err := j.openPart(ctx, s, l.Desc, abi.PartInfo{Layer: i, MediaType: l.Desc.MediaType, Annotations: l.Desc.Annotations}); err != nil {
			return err
		}
	}
	return s.eachRef(ctx, refsOf(&j.plugin.info.Description, j.node.Manifest.Layers), func(desc ocispec.Descriptor, info abi.PartInfo) error {
		return j.openPart(ctx, s, desc, info)
	})
}

func (j *attaching) openPart(ctx context.Context, s *source, desc ocispec.Descriptor, info abi.PartInfo) error {
	r, err := s.t.Ranges(ctx, desc)
	if errors.Is(err, abi.ErrUnsupported) {
		j.h.cfg.log.Warn("blocks cannot be fetched one by one here: the whole layer is fetched first", "layer", desc.Digest, "reason", err)
		r, err = s.readerAt(ctx, desc)
	}
	if err != nil {
		return err
	}
	j.undo = append(j.undo, func() { r.Close() })
	j.grants.Parts = append(j.grants.Parts, session.Part{At: r, Size: desc.Size})
	info.Digest, info.Size = string(desc.Digest), desc.Size
	j.msg.Parts = append(j.msg.Parts, info)
	j.msg.Locations = append(j.msg.Locations, s.t.Location(desc))
	return nil
}

// reserve makes the attachment's directory and locks it.
func (j *attaching) reserve() (err error) {
	id := j.req.ID
	if id == "" {
		id = j.plugin.info.Name + "-" + strings.ToLower(rand.Text()[:8])
	}
	if j.place, err = newPlace(j.h.cfg.stateDir, id); err != nil {
		return err
	}
	wait, cancel := context.WithTimeout(j.ctx, time.Second) // somebody may just look whether it is held
	defer cancel()
	if j.lock, err = lockfile.Lock(wait, j.place.lock()); err != nil {
		return err
	}
	j.undo = append(j.undo, func() { j.lock.Unlock() })
	return nil
}

// start runs the operation and waits until the image is attached.
func (j *attaching) start(ctx context.Context) (*Attachment, error) {
	j.grants.Pool, j.grants.Limits, j.grants.Log, j.grants.Attach = j.h.pool, j.h.sessionLimits(), j.h.cfg.log, true
	j.grants.Ready = func(resp *abi.AttachResponse) error {
		select {
		case j.ready <- resp:
			return nil
		default:
			return abi.Errorf(abi.ErrPlugin, "plugin says twice that the image is attached")
		}
	}
	a := &Attachment{AttachmentInfo: j.info, done: make(chan struct{}), stop: j.stop}
	if !j.h.serve(a, j) {
		j.close()
		return nil, abi.Errorf(abi.ErrInvalid, "the host is closed")
	}
	limit := time.NewTimer(j.h.cfg.limits.PluginTime)
	defer limit.Stop()
	select {
	case resp := <-j.ready:
		if err := j.attached(a, resp); err != nil {
			return nil, j.fail(a, err)
		}
		return a, nil
	case <-a.done:
		select {
		case resp := <-j.ready: // both, at once
			return a, j.attached(a, resp)
		default:
		}
		err := a.err
		if ctx.Err() != nil {
			err = canceled(ctx)
		}
		return nil, j.fail(a, err)
	case <-limit.C:
		return nil, j.fail(a, abi.Errorf(abi.ErrTimeout, "the image was not attached within %v", j.h.cfg.limits.PluginTime))
	}
}

// run is the operation, to its end.
func (j *attaching) run() error {
	answer, err := j.plugin.run.run(j.ctx, abi.OpAttach, abi.Marshal(&j.msg), j.grants)
	if err != nil {
		return j.located(err)
	}
	resp := new(abi.AttachResponse)
	if err := abi.Unmarshal(answer, resp); err != nil {
		return j.located(err)
	}
	select {
	case j.ready <- resp: // it needs nobody to serve it, or was not wanted
	default:
	}
	return nil
}

// attached stores what was made.
func (j *attaching) attached(a *Attachment, resp *abi.AttachResponse) error {
	a.Config = resp.Runtime
	if resp.ID == "" {
		a.ID = ""
		<-a.done
		return j.place.remove()
	}
	if resp.ID != j.place.id {
		return j.located(abi.Errorf(abi.ErrPlugin, "plugin calls the attachment %q, it is %q", resp.ID, j.place.id))
	}
	j.info.Device, a.Device = resp.Device, resp.Device
	return j.place.write(&record{AttachmentInfo: j.info, Plugin: j.plugin.info.Path})
}

// fail undoes what a failed attach may have left.
func (j *attaching) fail(a *Attachment, err error) error {
	clean, cancel := context.WithTimeout(context.WithoutCancel(j.ctx), cleanTimeout)
	defer cancel()
	derr := j.h.detachWith(clean, j.plugin, j.place, true)
	a.stop()
	<-a.done
	if derr == nil {
		derr = j.place.remove()
	}
	if derr != nil {
		j.h.cfg.log.Warn("what a failed attach left could not be removed; convhost detach tries again", "id", j.place.id, "error", derr)
	}
	return err
}

// How long cleaning up may take, and how long a server may take until it notices that it has nothing to serve.
const (
	cleanTimeout  = 30 * time.Second
	noticeTimeout = 10 * time.Second
)

func (j *attaching) located(err error) error {
	return &Error{Op: "attach", Format: j.plugin.info.Name, Manifest: j.node.Desc, Platform: platformOf(j.node), Layer: -1, Err: err}
}

// serve runs the operation in the background and keeps the attachment. It is false if the host was closed.
func (h *Host) serve(a *Attachment, j *attaching) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return false
	}
	if h.attached == nil {
		h.attached = map[string]*serving{}
	}
	h.attached[j.place.id] = &serving{a, j}
	h.ops.Go(func() {
		a.err = j.run()
		j.close()
		h.mu.Lock()
		delete(h.attached, j.place.id)
		h.mu.Unlock()
		close(a.done)
	})
	return true
}

// serving is an attachment of this host.
type serving struct {
	a *Attachment
	j *attaching
}

// own returns this host's attachments.
func (h *Host) own() map[string]*serving {
	h.mu.Lock()
	defer h.mu.Unlock()
	return maps.Clone(h.attached)
}

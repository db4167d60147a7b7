package host

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/cas/lockfile"
	"github.com/convhost/convhost/internal/session"
)

// DetachRequest asks to end an attachment, of this process or another.
type DetachRequest struct {
	ID string // or the device, or the directory it is mounted at
	// Force detaches also what is in use: its users get errors. A process that only serves the attachment and hangs is
	// ended.
	Force bool
}

// Detach ends an attachment and removes all that it made, also after its process was killed, and what an earlier Detach
// left. ErrNotFound if there is no such attachment; ErrExists if it is in use, and then it lives on.
func (h *Host) Detach(ctx context.Context, req DetachRequest) error {
	ctx, done, err := h.begin(ctx)
	if err != nil {
		return err
	}
	defer done()
	s, err := h.findAttachment(req.ID)
	if err != nil {
		return err
	}
	place := place{filepath.Join(h.cfg.stateDir, s.ID), s.ID}
	if err = h.detachOne(ctx, s, place, req); err != nil && place.gone() { // its server, or another Detach, was faster
		return nil
	}
	return err
}

func (h *Host) detachOne(ctx context.Context, s *record, place place, req DetachRequest) error {
	if own := h.own()[s.ID]; own != nil {
		return h.detachOwn(ctx, own, req.Force)
	}
	if s.Serving && s.Only && req.Force {
		return h.detachHung(ctx, s, place)
	}
	return h.detachOther(ctx, s, place, req.Force)
}

// detachOther cleans up after a process that lives, and then ends by itself, or is dead.
func (h *Host) detachOther(ctx context.Context, s *record, place place, force bool) error {
	format := s.Plugin
	if format == "" {
		format = s.Format
	}
	p, err := h.plugins.get(ctx, format, s.Runtime)
	if errors.Is(err, abi.ErrNotFound) { // another runtime reads the same state
		p, err = h.plugins.get(ctx, format, RuntimeDefault)
	}
	if err != nil {
		return err
	}
	if err := h.detachWith(ctx, p, place, force); err != nil {
		return err
	}
	return h.ended(ctx, s, place)
}

// ended waits until nobody serves an attachment any more, and removes its directory.
func (h *Host) ended(ctx context.Context, s *record, place place) error {
	wait, cancel := context.WithTimeout(ctx, noticeTimeout)
	defer cancel()
	l, err := lockfile.Lock(wait, place.lock())
	switch {
	case err != nil && place.gone(): // somebody else removed it meanwhile
		return nil
	case errors.Is(err, abi.ErrTimeout):
		return abi.Errorf(abi.ErrTimeout, "%s is detached, but process %d still serves it", s.ID, s.Process)
	case err != nil:
		return err
	}
	defer l.Unlock()
	return place.remove()
}

// detachHung is detachOther by force; a process that only serves the attachment and does not notice is ended.
func (h *Host) detachHung(ctx context.Context, s *record, place place) error {
	err := h.detachOther(ctx, s, place, true)
	if !errors.Is(err, abi.ErrTimeout) || ctx.Err() != nil {
		return err
	}
	if err := endProcess(s.Process, place.lock()); err != nil {
		return err
	}
	return h.detachOther(ctx, s, place, true)
}

// detachOwn ends an attachment of this host.
func (h *Host) detachOwn(ctx context.Context, s *serving, force bool) error {
	if err := h.detachWith(ctx, s.j.plugin, s.j.place, force); err != nil {
		return err
	}
	t := time.NewTimer(cleanTimeout)
	defer t.Stop()
	select {
	case <-s.a.done:
	case <-t.C: // the plugin does not notice
		s.a.stop()
		<-s.a.done
	}
	return s.j.place.remove()
}

// detachWith lets a plugin remove what it made.
func (h *Host) detachWith(ctx context.Context, p *plugin, place place, force bool) error {
	req := abi.DetachRequest{ID: place.id, StateDir: place.state(), Force: force}
	_, err := p.run.run(ctx, abi.OpDetach, abi.Marshal(&req), session.Config{Pool: h.pool, Limits: h.sessionLimits(), Log: h.cfg.log})
	if err != nil {
		return &Error{Op: "detach " + place.id, Format: p.info.Name, Layer: -1, Err: err}
	}
	return nil
}

// detachAll ends this host's attachments, by force if it must be.
func (h *Host) detachAll() error {
	var errs []error
	for _, s := range h.own() {
		ctx, cancel := context.WithTimeout(context.Background(), cleanTimeout)
		err := h.detachOwn(ctx, s, false)
		if errors.Is(err, abi.ErrExists) {
			h.cfg.log.Warn("an attachment is in use and is taken away all the same: the host ends", "id", s.a.ID)
			err = h.detachOwn(ctx, s, true)
		}
		cancel()
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Attachments lists what is attached, by this process and others, oldest first.
func (h *Host) Attachments(ctx context.Context) ([]AttachmentInfo, error) {
	_, done, err := h.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	all, err := readPlaces(h.cfg.stateDir)
	if err != nil {
		return nil, err
	}
	out := []AttachmentInfo{}
	for _, s := range all {
		out = append(out, s.AttachmentInfo)
	}
	slices.SortStableFunc(out, func(a, b AttachmentInfo) int { return a.Since.Compare(b.Since) })
	return out, nil
}

// findAttachment finds an attachment by ID, device or mount point.
func (h *Host) findAttachment(name string) (*record, error) {
	all, err := readPlaces(h.cfg.stateDir)
	if err != nil {
		return nil, err
	}
	abs, _ := filepath.Abs(name)
	var found *record
	for _, s := range all {
		switch {
		case s.ID == name:
			return s, nil
		case s.Device != "" && (s.Device == name || s.Device == abs) || s.Target != "" && s.Target == abs:
			if found == nil || s.Serving { // the device of a dead one may be another's by now
				found = s
			}
		}
	}
	if found == nil {
		ids := make([]string, len(all))
		for i, s := range all {
			ids[i] = s.ID
		}
		there := "nothing is attached"
		if len(ids) > 0 {
			there = "attached are: " + strings.Join(ids, ", ")
		}
		return nil, abi.Errorf(abi.ErrNotFound, "no attachment is named, mounted at or has the device %q; %s", name, there)
	}
	return found, nil
}

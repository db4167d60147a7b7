package plugintest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/convhost/convhost/abi"
)

// ended tells whether the plugin ended an operation in which the host had failed, rather than answering.
func (t *trial) ended(class abi.Class) error {
	switch {
	case t.err == nil:
		return errors.New("it was answered as if nothing had happened")
	case !errors.Is(t.err, class):
		return fmt.Errorf("want an error of class %d (%v), got class %d: %w", int(class), class, int(abi.ClassOf(t.err)), t.err)
	case t.ignored != nil:
		return fmt.Errorf("the plugin answered although a call to the host had failed (%w)", t.ignored)
	}
	return nil
}

// stalled is a layer that stops coming after its first bytes until the operation is cancelled.
type stalled struct {
	io.Reader
	ctx     context.Context
	arrived chan struct{}
}

func (s *stalled) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if err == io.EOF {
		select {
		case s.arrived <- struct{}{}:
		default:
		}
		<-s.ctx.Done()
		err = s.ctx.Err()
	}
	return n, err
}

func (s *stalled) Close() error { return nil }

func (k *kit) cancel() error {
	s := &k.set[3] // a big file
	for _, part := range []int{0, len(s.stored) / 2} {
		ctx, cancel := context.WithCancel(k.ctx)
		arrived := make(chan struct{}, 1)
		grant := layerGrant(s)
		grant.Open = func(context.Context) (io.ReadCloser, error) {
			return &stalled{bytes.NewReader(s.stored[:part]), ctx, arrived}, nil
		}
		go func() {
			select {
			case <-arrived:
				time.Sleep(20 * time.Millisecond) // let the plugin get to where it waits
			case <-ctx.Done():
			}
			cancel()
		}()
		t := k.convert(ctx, conditions{}, s, grant, &outputs{}, nil)
		cancel()
		if errors.Is(t.err, errHangs) {
			return t.err
		}
		if err := t.ended(abi.ErrCanceled); err != nil {
			return err
		}
	}
	return nil
}

func (k *kit) failingOutput() error {
	s := &k.set[2] // many small files
	full := abi.Errorf(abi.ErrLimit, "the disk of the test is full")
	var errs []error
	for _, tt := range []struct {
		name string
		fail func(index, written int) error
	}{
		{"the first write fails", func(_, written int) error {
			if written >= 0 {
				return full
			}
			return nil
		}},
		{"a later write fails", func(_, written int) error {
			if written > 10_000 {
				return full
			}
			return nil
		}},
		{"closing fails", func(_, written int) error {
			if written < 0 {
				return full
			}
			return nil
		}},
	} {
		outs := &outputs{fail: tt.fail}
		t := k.convert(k.ctx, conditions{}, s, nil, outs, nil)
		if t.err == nil && tt.name == "a later write fails" {
			continue // there was none
		}
		if err := t.ended(abi.ErrLimit); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", tt.name, err))
		}
	}
	return errors.Join(errs...)
}

func (k *kit) truncatedLayer() error {
	var errs []error
	for _, i := range []int{1, 2, 3} {
		for _, n := range []int{1, 100, len(k.set[i].stored) / 2, len(k.set[i].stored) - 9, len(k.set[i].stored) - 1} {
			s := k.set[i]
			grant := layerGrant(&s)
			b := s.stored[:n]
			grant.Open = func(context.Context) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }
			grant.At = nil
			class := abi.ErrTruncated
			if k.desc.Input == abi.RoleLayerStored || n < 18 { // a stored layer is only wrong by its digest, and a stump has no type
				class = abi.ErrCorrupt
			}
			if err := k.convert(k.ctx, conditions{}, &s, grant, &outputs{}, nil).ended(class); err != nil {
				errs = append(errs, fmt.Errorf("layer %q, %d of %d bytes: %w", s.name, n, len(s.stored), err))
			}
		}
	}
	return errors.Join(errs...)
}

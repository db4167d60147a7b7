package blockdev

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/plugins/overlaybd/nbd"
)

// socketDevice is a disk that programs reach by the network block device protocol on a Unix socket: no kernel, no root.
type socketDevice struct {
	state    State
	listener net.Listener
	export   nbd.Export
	log      *slog.Logger
	done     chan struct{}

	mu     sync.Mutex
	conns  map[net.Conn]bool
	closed bool
	served sync.WaitGroup
}

// socketWatch is how often a served socket looks whether it is still there: removing it is how others end it.
const socketWatch = 500 * time.Millisecond

func openSocket(c Config) (Device, error) {
	d := &socketDevice{
		state:  State{Backend: "socket", Label: c.Label, File: filepath.Join(c.Dir, "nbd")},
		export: nbd.Export{Disk: c.Disk, Log: c.Log}, log: c.Log, done: make(chan struct{}), conns: map[net.Conn]bool{},
	}
	if err := c.Save(d.state); err != nil {
		return nil, err
	}
	var err error
	if d.listener, err = net.Listen("unix", d.state.File); err != nil {
		return nil, abi.Errorf(abi.ErrIO, "listen on %s: %w", d.state.File, err)
	}
	d.served.Go(d.accept)
	go d.watch()
	return d, nil
}

func (d *socketDevice) accept() {
	for {
		conn, err := d.listener.Accept()
		if err != nil {
			return
		}
		d.mu.Lock()
		if d.closed {
			d.mu.Unlock()
			conn.Close()
			return
		}
		d.conns[conn] = true
		d.mu.Unlock()
		d.served.Go(func() {
			if err := nbd.Serve(conn, d.export); err != nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, io.ErrClosedPipe) {
				d.log.Warn("a client broke off", "error", err)
			}
			conn.Close()
			d.mu.Lock()
			delete(d.conns, conn)
			d.mu.Unlock()
		})
	}
}

// watch ends the device when its socket is gone.
func (d *socketDevice) watch() {
	tick := time.NewTicker(socketWatch)
	defer tick.Stop()
	for {
		select {
		case <-d.done:
			return
		case <-tick.C:
			if _, err := os.Lstat(d.state.File); os.IsNotExist(err) {
				d.end()
				return
			}
		}
	}
}

// end closes everything and waits for the clients' requests.
func (d *socketDevice) end() {
	d.mu.Lock()
	first := !d.closed
	d.closed = true
	for conn := range d.conns {
		conn.Close()
	}
	d.mu.Unlock()
	if first {
		d.listener.Close()
		d.served.Wait()
		close(d.done)
	}
	<-d.done
}

// cleanSocket removes the socket; its server, if it lives, notices.
func cleanSocket(s State) error {
	if err := os.Remove(s.File); err != nil && !os.IsNotExist(err) {
		return abi.Errorf(abi.ErrIO, "remove socket: %w", err)
	}
	return nil
}

// Path implements Device: the address as qemu and libnbd take it.
func (d *socketDevice) Path() string { return "nbd+unix:///?socket=" + d.state.File }

// State implements Device.
func (d *socketDevice) State() State { return d.state }

// Done implements Device.
func (d *socketDevice) Done() <-chan struct{} { return d.done }

// Close implements Device.
func (d *socketDevice) Close() error {
	d.end()
	return cleanSocket(d.state)
}

func (d *socketDevice) sealed() {}

// open presents a disk with one of Backends.
func open(ctx context.Context, backend string, c Config) (Device, error) {
	if backend == "socket" {
		return openSocket(c)
	}
	return openKernel(ctx, backend, c)
}

// Backends lists the ways to present a disk, best first, and whether they can be used here.
func Backends() []Backend { return append(kernelBackends(), Backend{Name: "socket"}) }

// Abort makes whoever waits for a device get errors, at once and from then on. Clean is still needed.
func Abort(s State) { abortKernel(s) }

// Clean removes what a killed process left of a device, and what a living one serves: then its Done is closed. It does
// nothing where nothing is left. If the device is in use, that is abi.ErrExists; with force it is taken away all the same,
// and its users get errors.
func Clean(_ context.Context, s State, force bool) error {
	if s.Backend == "socket" {
		return cleanSocket(s)
	}
	return cleanKernel(s, force)
}

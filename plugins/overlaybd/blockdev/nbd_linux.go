package blockdev

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/plugins/overlaybd/nbd"
)

// Requests of the kernel's client, linux/nbd.h.
const (
	nbdSetSock    = 0xab00
	nbdSetBlkSize = 0xab01
	nbdDoIt       = 0xab03
	nbdClearSock  = 0xab04
	nbdSetBlocks  = 0xab07
	nbdDisconnect = 0xab08
	nbdSetFlags   = 0xab0a
)

const nbdSys = "/sys/block"

func nbdAvailable() error {
	if all, _ := filepath.Glob(nbdSys + "/nbd*"); len(all) == 0 {
		return abi.Errorf(abi.ErrUnsupported, "the kernel has no network block devices: module nbd is not loaded")
	}
	if os.Geteuid() != 0 {
		return abi.Errorf(abi.ErrDenied, "network block devices take root")
	}
	return nil
}

// nbdDevice is a network block device whose server is in this process, at the other end of a socket pair.
type nbdDevice struct {
	state State
	dev   *os.File
	done  chan struct{}
	once  sync.Mutex
}

func openNBD(_ context.Context, c Config) (Device, error) {
	all, err := filepath.Glob(nbdSys + "/nbd*")
	if err != nil {
		return nil, systemError("list network block devices", err)
	}
	for _, sys := range all {
		if nbdServer(sys) != 0 {
			continue
		}
		d := &nbdDevice{state: State{Backend: "nbd", Label: c.Label, Device: "/dev/" + filepath.Base(sys)}, done: make(chan struct{})}
		err := d.start(c)
		if errors.Is(err, unix.EBUSY) {
			continue
		}
		if err != nil {
			return nil, err
		}
		return d, nil
	}
	return nil, abi.Errorf(abi.ErrLimit, "all %d network block devices are in use: load the module nbd with a larger nbds_max", len(all))
}

func (d *nbdDevice) start(c Config) error {
	dev, err := os.OpenFile(d.state.Device, os.O_RDWR, 0) // it stays open: not exclusively, or nobody else could use it
	if err != nil {
		return systemError("open "+d.state.Device, err)
	}
	if err := c.Save(d.state); err != nil {
		dev.Close()
		return err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		dev.Close()
		return systemError("make a socket pair", err)
	}
	e := nbd.Export{Disk: c.Disk, Parallel: maxRequests, Log: c.Log}
	err = configureNBD(dev, pair[0], &e)
	unix.Close(pair[0]) // the kernel has its own reference
	ours := os.NewFile(uintptr(pair[1]), "nbd")
	conn, cerr := net.FileConn(ours)
	ours.Close()
	if err = errors.Join(err, cerr); err != nil {
		dev.Close()
		return err
	}
	d.dev = dev
	d.serve(conn, e, c.Log)
	if err = d.connected(); err == nil {
		d.state.Server = nbdServer(d.state.Device)
		err = c.Save(d.state)
	}
	if err != nil {
		_ = unix.IoctlSetInt(int(dev.Fd()), nbdDisconnect, 0)
	}
	return err
}

// nbdServer returns the thread that serves a device, 0 if none does.
func nbdServer(device string) int {
	b, err := os.ReadFile(filepath.Join(nbdSys, filepath.Base(device), "pid"))
	if err != nil {
		return 0
	}
	n, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	return n
}

func configureNBD(dev *os.File, sock int, e *nbd.Export) error {
	fd := int(dev.Fd())
	for _, r := range []struct {
		what       string
		req, value int
	}{
		{"set its socket", nbdSetSock, sock},
		{"set its block size", nbdSetBlkSize, SectorSize},
		{"set its size", nbdSetBlocks, int(e.Disk.Size() / SectorSize)},
		{"set its flags", nbdSetFlags, int(e.Flags() &^ nbd.FlagMultiConn)},
	} {
		err := unix.IoctlSetInt(fd, uint(r.req), r.value)
		if errors.Is(err, unix.EBUSY) {
			return err
		} else if err != nil {
			return systemError(dev.Name()+": "+r.what, err)
		}
	}
	return nil
}

// serve answers the kernel on one goroutine, while another lends its thread to the kernel's client.
func (d *nbdDevice) serve(conn net.Conn, e nbd.Export, log *slog.Logger) {
	go func() {
		if err := nbd.Transmit(conn, e); err != nil {
			log.Warn("the kernel's client broke off", "device", d.state.Device, "error", err)
		}
		conn.Close()
	}()
	go func() {
		defer close(d.done)
		defer d.dev.Close()
		fd := int(d.dev.Fd())
		_ = unix.IoctlSetInt(fd, nbdDoIt, 0) // returns when the device is disconnected
		_ = unix.IoctlSetInt(fd, nbdClearSock, 0)
		conn.Close()
	}()
}

// connected waits until the kernel serves the device.
func (d *nbdDevice) connected() error {
	for range 100 {
		if nbdServer(d.state.Device) != 0 {
			return nil
		}
		select {
		case <-d.done:
			return abi.Errorf(abi.ErrIO, "%s: the kernel did not take the connection", d.state.Device)
		case <-time.After(busyWait):
		}
	}
	return abi.Errorf(abi.ErrTimeout, "%s did not come up", d.state.Device)
}

// cleanNBD disconnects a device that is still served by the process that State speaks of. The kernel disconnects by itself
// when that process is gone.
func cleanNBD(s State, force bool) error {
	if !strings.HasPrefix(s.Device, "/dev/nbd") {
		return nil
	}
	if server := nbdServer(s.Device); server == 0 || server != s.Server {
		return nil // nobody serves it, or somebody else
	}
	if mounted, err := sourceMounted(s.Device); (err != nil || mounted) && !force {
		return notWhileMounted(s.Device, err)
	}
	return disconnectNBD(s)
}

func disconnectNBD(s State) error {
	if server := nbdServer(s.Device); server == 0 || server != s.Server {
		return nil
	}
	dev, err := os.OpenFile(s.Device, os.O_RDWR, 0)
	if err != nil {
		return systemError("open "+s.Device, err)
	}
	defer dev.Close()
	if err := unix.IoctlSetInt(int(dev.Fd()), nbdDisconnect, 0); err != nil && !errors.Is(err, unix.EINVAL) {
		return systemError("disconnect "+s.Device, err)
	}
	return nil
}

// Path implements Device.
func (d *nbdDevice) Path() string { return d.state.Device }

// State implements Device.
func (d *nbdDevice) State() State { return d.state }

// Done implements Device.
func (d *nbdDevice) Done() <-chan struct{} { return d.done }

// Close implements Device.
func (d *nbdDevice) Close() error {
	d.once.Lock()
	defer d.once.Unlock()
	select {
	case <-d.done:
		return nil
	default:
	}
	if err := cleanNBD(d.state, false); err != nil {
		return err
	}
	select {
	case <-d.done:
		return nil
	case <-time.After(10 * time.Second):
		return abi.Errorf(abi.ErrIO, "%s is disconnected, but the kernel still holds it", d.state.Device)
	}
}

func (d *nbdDevice) sealed() {}

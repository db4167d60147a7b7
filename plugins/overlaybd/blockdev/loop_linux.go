package blockdev

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/convhost/convhost/abi"
)

// loopDevice is a loop device over a FUSE file.
type loopDevice struct {
	state State
	fuse  *fuseMount
	once  sync.Mutex
}

func fuseAvailable() error {
	for _, dev := range []struct{ path, what string }{{"/dev/fuse", "FUSE"}, {"/dev/loop-control", "loop devices"}} {
		fd, err := unix.Open(dev.path, unix.O_RDWR|unix.O_CLOEXEC, 0)
		switch {
		case errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM):
			return abi.Errorf(abi.ErrDenied, "%s may not be opened: block devices take root", dev.path)
		case err != nil:
			return abi.Errorf(abi.ErrUnsupported, "the kernel has no %s: %s: %w", dev.what, dev.path, err)
		}
		unix.Close(fd)
	}
	return nil
}

func openFuse(ctx context.Context, c Config) (Device, error) {
	d := &loopDevice{state: State{Backend: "fuse", Label: c.Label, File: filepath.Join(c.Dir, "disk")}}
	if err := c.Save(d.state); err != nil {
		return nil, err
	}
	f := newFuseFile(c.Disk, c.Log, os.Getpagesize())
	var err error
	if d.fuse, err = mountFuse(d.state.File, f); err != nil {
		return nil, err
	}
	if err = d.attach(ctx, c, f.writable == nil); err != nil {
		return nil, errors.Join(err, Clean(context.WithoutCancel(ctx), d.state, true))
	}
	return d, nil
}

// attach finds a free loop device and lays it over the file.
func (d *loopDevice) attach(ctx context.Context, c Config, readOnly bool) error {
	flags := unix.O_RDWR
	if readOnly {
		flags = unix.O_RDONLY
	}
	file, err := unix.Open(d.state.File, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return systemError("open "+d.state.File, err)
	}
	defer unix.Close(file)
	var st unix.Stat_t
	if err := unix.Fstat(file, &st); err != nil { // older kernels take the size that was asked for last
		return systemError("look at "+d.state.File, err)
	}
	ctl, err := unix.Open("/dev/loop-control", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return systemError("open /dev/loop-control", err)
	}
	defer unix.Close(ctl)
	for {
		if err := ctx.Err(); err != nil {
			return abi.Errorf(abi.ClassOf(err), "make a block device: %w", err)
		}
		n, err := unix.IoctlRetInt(ctl, unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return systemError("find a free loop device", err)
		}
		d.state.Device = "/dev/loop" + strconv.Itoa(n)
		if err := c.Save(d.state); err != nil {
			return err
		}
		if err := configureLoop(d.state, file, readOnly); !errors.Is(err, unix.EBUSY) {
			return err
		}
	}
}

// configureLoop sets up one device. EBUSY says that somebody was faster.
func configureLoop(s State, file int, readOnly bool) error {
	flags, mode := uint32(unix.LO_FLAGS_DIRECT_IO), unix.O_RDWR // the file system above has a cache: one is enough
	if readOnly {
		flags, mode = flags|unix.LO_FLAGS_READ_ONLY, unix.O_RDONLY
	}
	loop, err := unix.Open(s.Device, mode|unix.O_CLOEXEC, 0)
	if err != nil {
		return systemError("open "+s.Device, err)
	}
	defer unix.Close(loop)
	cfg := unix.LoopConfig{Fd: uint32(file), Size: SectorSize, Info: unix.LoopInfo64{Flags: flags}}
	copy(cfg.Info.File_name[:], s.Label)
	err = unix.IoctlLoopConfigure(loop, &cfg)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTTY) {
		err = configureOldLoop(loop, &cfg)
	}
	if err != nil && !errors.Is(err, unix.EBUSY) {
		err = systemError("configure "+s.Device, err)
	}
	return err
}

// configureOldLoop does the same in steps, for kernels before Linux 5.8. The device is read-only if it was opened so.
func configureOldLoop(loop int, cfg *unix.LoopConfig) error {
	if err := unix.IoctlSetInt(loop, unix.LOOP_SET_FD, int(cfg.Fd)); err != nil {
		return err
	}
	info := cfg.Info
	info.Flags = 0
	err := unix.IoctlLoopSetStatus64(loop, &info)
	if err != nil {
		_ = unix.IoctlSetInt(loop, unix.LOOP_CLR_FD, 0)
		return err
	}
	_ = unix.IoctlSetInt(loop, unix.LOOP_SET_DIRECT_IO, 1) // without it, pages are cached twice
	return nil
}

// ownLoop opens the state's loop device if it is still the labelled one; -1 if not.
func ownLoop(s State) (int, error) {
	if !strings.HasPrefix(s.Device, "/dev/loop") {
		return -1, nil
	}
	fd, err := unix.Open(s.Device, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENXIO):
		return -1, nil
	case err != nil:
		return -1, systemError("open "+s.Device, err)
	}
	info, err := unix.IoctlLoopGetStatus64(fd)
	if err == nil {
		if name, _, _ := bytes.Cut(info.File_name[:], []byte{0}); string(name) == s.Label {
			return fd, nil
		}
	}
	unix.Close(fd)
	return -1, nil // free, or somebody else's
}

// detachLoop frees the loop device. abi.ErrExists if it is mounted or otherwise claimed; with force the kernel frees it when
// its last user is gone.
func detachLoop(s State, force bool) error {
	for try := 0; ; try++ {
		fd, err := ownLoop(s)
		if err != nil || fd < 0 {
			return err
		}
		if mounted, err := sourceMounted(s.Device); (err != nil || mounted) && !force {
			unix.Close(fd)
			return notWhileMounted(s.Device, err)
		}
		excl, err := unix.Open(s.Device, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_EXCL, 0) // EBUSY if it is mounted
		if err == nil {
			unix.Close(excl)
		}
		if err == nil || force {
			err = unix.IoctlSetInt(fd, unix.LOOP_CLR_FD, 0)
		}
		unix.Close(fd) // frees it
		switch {
		case err == nil || errors.Is(err, unix.ENXIO):
			return nil
		case !errors.Is(err, unix.EBUSY):
			return systemError("free "+s.Device, err)
		case try >= busyTries:
			return abi.Errorf(abi.ErrExists, "%s is in use", s.Device)
		}
		time.Sleep(busyWait)
	}
}

// cleanFuse removes loop device and FUSE file.
func cleanFuse(s State, force bool) error {
	if err := detachLoop(s, force); err != nil || s.File == "" {
		return err
	}
	return unmountFuse(s.File, force)
}

// Path implements Device.
func (d *loopDevice) Path() string { return d.state.Device }

// State implements Device.
func (d *loopDevice) State() State { return d.state }

// Done implements Device.
func (d *loopDevice) Done() <-chan struct{} { return d.fuse.done }

// Close implements Device.
func (d *loopDevice) Close() error {
	d.once.Lock()
	defer d.once.Unlock()
	if err := cleanFuse(d.state, false); err != nil {
		return err
	}
	select {
	case <-d.fuse.done:
		return nil
	case <-time.After(10 * time.Second):
		return abi.Errorf(abi.ErrIO, "%s is unmounted, but the kernel still holds it", d.state.File)
	}
}

func (d *loopDevice) sealed() {}

func (d *loopDevice) String() string { return fmt.Sprintf("%s over %s", d.state.Device, d.state.File) }

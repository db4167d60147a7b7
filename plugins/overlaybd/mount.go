package overlaybd

import (
	"encoding/binary"
	"errors"
	"io"
	"strings"

	"github.com/convhost/convhost/abi"
)

// mountOptions are how a file system is mounted: flags by their names, and what is passed to the file system.
type mountOptions struct {
	flags map[string]bool
	data  []string
}

// mountFlags are the names that are flags to the kernel. A name with "no" before it is the other way round.
var mountFlags = map[string]bool{"suid": true, "dev": true, "exec": true, "ro": true, "atime": true, "diratime": true, "relatime": true, "strictatime": true, "sync": true}

// parseMount reads a list such as "suid,dev,noatime,data=writeback". A read-only device is mounted so, and without looking at
// the journal, which could not be replayed.
func parseMount(list string, readOnly bool) (o mountOptions, err error) {
	o.flags = map[string]bool{"suid": false, "dev": false, "ro": readOnly}
	for word := range strings.SplitSeq(list, ",") {
		name, no := strings.CutPrefix(word, "no")
		switch {
		case word == "":
		case mountFlags[word]:
			o.flags[word] = true
		case no && mountFlags[name]:
			o.flags[name] = false
		case word == "rw" && readOnly:
			return o, abi.Errorf(abi.ErrInvalid, "option mount-options=%s: the device is read-only; writable=true changes that", list)
		case word == "rw":
			o.flags["ro"] = false
		case strings.ContainsAny(word, "\x00"):
			return o, abi.Errorf(abi.ErrInvalid, "option mount-options=%q", list)
		default:
			o.data = append(o.data, word)
		}
	}
	return o, nil
}

// fileSystem finds out what is on a device, by its magic numbers.
func fileSystem(r io.ReaderAt) (kind string, err error) {
	b := make([]byte, 2048)
	if n, err := r.ReadAt(b, 0); n < len(b) {
		if err == nil || errors.Is(err, io.EOF) {
			err = abi.Errorf(abi.ErrTruncated, "device has %d bytes: too few for a file system", n)
		}
		return "", err
	}
	switch {
	case binary.LittleEndian.Uint16(b[1024+56:]) == 0xef53:
		return "ext4", nil
	case binary.LittleEndian.Uint32(b[1024:]) == 0xe0f5e1e2:
		return "erofs", nil
	case string(b[:4]) == "XFSB":
		return "xfs", nil
	}
	return "", abi.Errorf(abi.ErrUnsupported, "the device holds no file system that can be mounted: neither ext4, nor EROFS, nor XFS")
}

// forKind adds what a file system needs to be mounted from an image.
func (o *mountOptions) forKind(kind string) string {
	data := o.data
	switch {
	case kind == "ext4" && o.flags["ro"]:
		data = append([]string{"noload"}, data...)
	case kind == "xfs":
		data = append([]string{"nouuid"}, data...) // layers share it
	}
	return strings.Join(data, ",")
}

package overlaybd

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/plugins/overlaybd/blockdev"
	"github.com/convhost/convhost/plugins/overlaybd/lsmt"
)

// Names of a writable layer's files in its directory; accelerated-container-image calls them the same.
const (
	upperData  = "writable_data"
	upperIndex = "writable_index"
)

// openDisk returns what the device shows: the image, or a writable layer on it.
func openDisk(s *attachState, image *stack, o attachment) (blockdev.Disk, func() error, error) {
	if !o.writable {
		return image, func() error { return nil }, nil
	}
	dir := o.upper
	if dir == "" {
		dir = filepath.Join(s.dir, "upper")
		s.Upper = dir
		if err := s.save(); err != nil {
			return nil, nil, err
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, fileError(err)
	}
	data, err := os.OpenFile(filepath.Join(dir, upperData), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, nil, fileError(err)
	}
	index, err := os.OpenFile(filepath.Join(dir, upperIndex), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		data.Close()
		return nil, nil, fileError(err)
	}
	u, err := openUpper(image, data, index)
	if err != nil {
		data.Close()
		index.Close()
		return nil, nil, err
	}
	return u, func() error {
		err := u.Sync()
		return errors.Join(err, fileError(data.Close()), fileError(index.Close()))
	}, nil
}

// emptyUpper makes the files of a writable layer that another runtime is to use, unless they are there.
func emptyUpper(s *attachState, image *stack, o attachment) error {
	if o.upper == "" {
		return nil
	}
	_, closeDisk, err := openDisk(s, image, o)
	if err != nil {
		return err
	}
	return closeDisk()
}

// openUpper opens a writable layer, or makes a new one in empty files. It belongs to the layers that it was made on: on
// others its blocks would make no sense.
func openUpper(image *stack, data, index *os.File) (*lsmt.Upper, error) {
	if err := lockFile(index); err != nil {
		return nil, err
	}
	dataSize, indexSize, err := sizes(data, index)
	if err != nil {
		return nil, err
	}
	comment := "on " + image.identity()
	if dataSize < lsmt.HeaderSize && indexSize < lsmt.HeaderSize { // new, or killed while it was made
		return lsmt.CreateUpper(image, data, index, lsmt.Config{VirtualSize: image.Size(), Parent: image.uuid(), Comment: comment})
	}
	u, err := lsmt.OpenUpper(image, image.Size(), data, dataSize, index, indexSize)
	if err != nil {
		return nil, err
	}
	if was := u.Header().Comment; was != comment {
		return nil, abi.Errorf(abi.ErrInvalid, "writable layer %s was not made on this image (it says %q, the image is %q)", filepath.Dir(index.Name()), was, comment)
	}
	return u, nil
}

func sizes(data, index *os.File) (d, i int64, err error) {
	var st [2]fs.FileInfo
	for k, f := range []*os.File{data, index} {
		if st[k], err = f.Stat(); err != nil {
			return 0, 0, fileError(err)
		}
	}
	return st[0].Size(), st[1].Size(), nil
}

// identity names the layers of a stack by their digests.
func (s *stack) identity() string {
	sum := sha256.New()
	for _, l := range s.layers {
		sum.Write([]byte(l.info.Digest + "\n"))
	}
	return "sha256:" + hex.EncodeToString(sum.Sum(nil))
}

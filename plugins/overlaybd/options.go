package overlaybd

import (
	"strconv"
	"strings"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/plugins/overlaybd/ext4"
	"github.com/convhost/convhost/plugins/overlaybd/zfile"
	"github.com/convhost/convhost/sdk"
)

// defaultSize is the size of the device, in bytes: 64 GiB, of which only what is used is stored.
const defaultSize = 64 << 30

// options are those of accelerated-container-image's convertor that belong to the format, and what its formats allow.
func options() []abi.OptionSpec {
	yesNo := []string{"true", "false"}
	return append([]abi.OptionSpec{
		{Name: "mkfs", Default: "true", Values: yesNo, Help: "make the file system as part of the first layer; false: as a layer of its own below it, which is the dictionary if one is given"},
		{Name: "vsize", Default: "64", Help: "size of the device: a number of GiB, or bytes with K, M or G; with mkfs=false and a dictionary, its own"},
		{Name: "fstype", Default: "ext4", Values: []string{"ext4"}, Help: "file system on the device"},
		{Name: "compression", Default: "lz4", Values: []string{"lz4", "zstd"}, Help: "how blocks are compressed"},
		{Name: "block-size", Default: "4K", Help: "bytes that are compressed together: 4K, 8K, 16K or 32K"},
		{Name: "disable-sparse", Default: "false", Values: yesNo, Help: "store blocks of zeros that a layer writes as data"},
		{Name: "checksums", Default: "false", Values: yesNo, Help: "make the file system with metadata_csum; layers get larger, and upstream's tools cannot add to them"},
		{Name: "inode-ratio", Default: "16K", Help: "bytes of the device for each inode; less for small devices with many files"},
	}, attachOptions()...)
}

// settings are the options of one request.
type settings struct {
	mkfs       bool
	size       int64 // of the device; bytes
	keepZeros  bool
	warp       bool // the layer leaves data in the original one (TurboOCI)
	compressor zfile.Config
	format     ext4.MkfsOptions
}

var (
	yesNo       = map[string]bool{"true": true, "false": false}
	compressors = map[string]zfile.Algorithm{"lz4": zfile.LZ4, "zstd": zfile.Zstd}
)

func parseOptions(o map[string]string) (s settings, err error) {
	if err := checkAttachOptions(o); err != nil {
		return s, err
	}
	if s.mkfs, err = sdk.Choice(o, "mkfs", "true", yesNo); err != nil {
		return s, err
	}
	if s.size, err = deviceSize(o["vsize"]); err != nil {
		return s, err
	}
	if _, err = sdk.Choice(o, "fstype", "ext4", map[string]bool{"ext4": true}); err != nil {
		return s, err
	}
	if s.compressor.Algorithm, err = sdk.Choice(o, "compression", "lz4", compressors); err != nil {
		return s, err
	}
	block, err := sdk.Size(o, "block-size", zfile.DefaultBlockSize)
	if err != nil {
		return s, err
	}
	if block < 4<<10 || block > 32<<10 || block&(block-1) != 0 {
		return s, abi.Errorf(abi.ErrInvalid, "option block-size=%s: want 4K, 8K, 16K or 32K", o["block-size"])
	}
	s.compressor.BlockSize = int(block)
	if s.keepZeros, err = sdk.Choice(o, "disable-sparse", "false", yesNo); err != nil {
		return s, err
	}
	if s.format.Checksums, err = sdk.Choice(o, "checksums", "false", yesNo); err != nil {
		return s, err
	}
	ratio, err := sdk.Size(o, "inode-ratio", 16<<10)
	if err != nil {
		return s, err
	}
	if ratio < 1<<10 || ratio > 64<<20 {
		return s, abi.Errorf(abi.ErrInvalid, "option inode-ratio=%s: want 1K to 64M", o["inode-ratio"])
	}
	s.format.InodeRatio = ratio
	return s, nil
}

// deviceSize reads the option vsize: upstream's number of GiB, or bytes with a suffix.
func deviceSize(v string) (int64, error) {
	wrong := abi.Errorf(abi.ErrInvalid, "option vsize=%s: want a number of GiB, as in 64, or bytes with K, M or G, from 1M to 16384G", v)
	n, err := int64(defaultSize), error(nil)
	switch {
	case v == "":
	case strings.Trim(v, "0123456789") == "":
		var gib int64
		if gib, err = strconv.ParseInt(v, 10, 64); err != nil || gib > 16<<10 {
			return 0, wrong
		}
		n = gib << 30
	default:
		if n, err = sdk.Size(map[string]string{"vsize": v}, "vsize", 0); err != nil {
			return 0, wrong
		}
	}
	if n < 1<<20 || n > 16<<40 || n%ext4.BlockSize != 0 {
		return 0, wrong
	}
	return n, nil
}

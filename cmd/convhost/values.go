package main

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
)

// choice is a flag with a few legal values.
type choice struct {
	v     *string
	legal []string
}

func oneOf(v *string, def string, legal []string) pflag.Value {
	*v = def
	return &choice{v, legal}
}

func (c *choice) String() string { return *c.v }
func (c *choice) Type() string   { return "string" }

func (c *choice) Set(s string) error {
	if !slices.Contains(c.legal, s) {
		return fmt.Errorf("want one of %s", strings.Join(c.legal, ", "))
	}
	*c.v = s
	return nil
}

// byteSize is a flag with a number of bytes: 1048576, 1MiB, 1.5GB.
type byteSize int64

var units = []struct {
	suffix string
	factor float64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"B", 1},
}

func (b *byteSize) Type() string { return "size" }

func (b *byteSize) String() string {
	for i := 3; i >= 0; i-- {
		if f := int64(units[i].factor); *b != 0 && int64(*b)%f == 0 {
			return strconv.FormatInt(int64(*b)/f, 10) + units[i].suffix
		}
	}
	return strconv.FormatInt(int64(*b), 10)
}

func (b *byteSize) Set(s string) error {
	number, factor := strings.TrimSpace(s), 1.0
	for _, u := range units {
		if n, ok := strings.CutSuffix(number, u.suffix); ok {
			number, factor = strings.TrimSpace(n), u.factor
			break
		}
	}
	f, err := strconv.ParseFloat(number, 64)
	if err != nil || math.IsNaN(f) || f <= 0 || f*factor >= math.MaxInt64 {
		return fmt.Errorf("want a size like 512MiB or 2GB")
	}
	*b = byteSize(f * factor)
	return nil
}

// fileList is a repeatable flag with a file; in the environment several are separated as in PATH.
type fileList = dirList

// dirList is a repeatable flag with a directory; in the environment several are separated as in PATH.
type dirList struct{ list *[]string }

func (d *dirList) Type() string   { return "dirs" }
func (d *dirList) String() string { return strings.Join(*d.list, string(os.PathListSeparator)) }

func (d *dirList) Set(s string) error {
	for _, dir := range filepath.SplitList(s) {
		if dir != "" {
			*d.list = append(*d.list, dir)
		}
	}
	return nil
}

package judges

import (
	"slices"
	"testing"

	"github.com/convhost/convhost/internal/layer/flatten"
	"github.com/convhost/convhost/test/judge"
	"github.com/convhost/convhost/test/rawobd"
)

// The kernel mounts the device of layers 0 to i, for every i, and every attribute of every name is that of the flattened source.
func TestKernelExt4(t *testing.T) {
	judge.Root(t)
	kernelHas(t, "ext4")
	chainCases(t, kernelVerdict)
}

// kernelVerdict judges a device by mounting it.
func kernelVerdict(t *testing.T, dev *rawobd.Device, tree *flatten.Tree) {
	report(t, flatten.Compare(tree.Records(), slices.Values(kernelRecords(t, dev)), flatten.CompareOptions{}))
}

// kernelRecords lists what the kernel sees on a device, without lost+found.
func kernelRecords(t testing.TB, dev *rawobd.Device) []flatten.Record {
	t.Helper()
	all := mountRecords(t, mounted(t, "ext4", "ro", loop(t, dev.File.Name())))
	return slices.DeleteFunc(all, func(r flatten.Record) bool { return r.Path == "lost+found" })
}

// The kernel sees the tree of the source after any of many changes.
func TestKernelExt4Wear(t *testing.T) {
	judge.Root(t)
	kernelHas(t, "ext4")
	wearCases(t, kernelVerdict)
}

package sdk_test

import (
	"fmt"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/sdk"
)

func ExampleOverlay() {
	layers := [][]abi.Entry{
		{
			{Kind: abi.KindRegular, Path: "etc/motd", Size: 5, Mode: 0o644},
			{Kind: abi.KindRegular, Path: "bin/sh", Size: 100, Mode: 0o755},
			{Kind: abi.KindHardlink, Path: "bin/ash", Link: "bin/sh", Mode: 0o755},
		}, {
			{Kind: abi.KindRegular, Path: "etc/.wh.motd", Flags: abi.EntryWhiteout},
			{Kind: abi.KindRegular, Path: "etc/issue", Size: 7, Mode: 0o600},
		},
	}
	o := sdk.NewOverlay()
	for i, entries := range layers {
		o.BeginLayer()
		for j := range entries {
			if err := o.Add(&entries[j], uint64(i*100+j)); err != nil {
				fmt.Println(err)
			}
		}
	}
	for e, body := range o.Entries() {
		fmt.Println(e.Kind, e.Path, e.Link, e.Size, body)
	}
	// Output:
	// 2 bin  0 0
	// 1 bin/ash  100 1
	// 4 bin/sh bin/ash 0 1
	// 2 etc  0 0
	// 1 etc/issue  7 101
}

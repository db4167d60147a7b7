package ext4_test

import (
	"context"
	"fmt"
	"strings"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/plugins/overlaybd/ext4"
)

func Example() {
	const size = 1 << 30
	ctx := context.Background()

	bottom := ext4.NewOverlay(nil, size, nil)
	a, err := ext4.Format(bottom, ext4.MkfsOptions{}, ext4.Options{})
	for _, e := range []abi.Entry{
		{Kind: abi.KindDir, Path: "etc", Mode: 0o755},
		{Kind: abi.KindRegular, Path: "etc/motd", Mode: 0o644, Size: 6},
	} {
		if err == nil {
			err = a.Apply(ctx, &e, strings.NewReader("hello\n"))
		}
	}
	if err == nil {
		_, err = a.Commit()
	}
	if err != nil {
		fmt.Println(err)
		return
	}

	top := ext4.NewOverlay(bottom, size, nil)
	if a, err = ext4.NewApplier(top, ext4.Options{}); err == nil {
		err = a.Apply(ctx, &abi.Entry{Kind: abi.KindSymlink, Path: "etc/issue", Link: "motd"}, nil)
	}
	if err == nil {
		_, err = a.Commit()
	}
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("blocks:", bottom.Changed(), top.Changed())

	im, err := ext4.Open(top, size)
	if err == nil {
		err = im.Walk(ctx, func(e *abi.Entry, body *ext4.File) error {
			fmt.Printf("%o /%s\n", e.Mode, e.Path)
			return nil
		})
	}
	fmt.Println(err, ext4.Check(top, size))
	// Output:
	// blocks: 38 5
	// 755 /
	// 755 /etc
	// 777 /etc/issue
	// 644 /etc/motd
	// <nil> []
}

package layer_test

import (
	"bytes"
	"fmt"
	"io"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/internal/layer"
	"github.com/convhost/convhost/internal/layer/tarwrite"
)

func Example() {
	var b []byte
	for _, e := range []abi.Entry{
		{Kind: abi.KindDir, Path: "etc", Mode: 0o755},
		{Kind: abi.KindRegular, Path: "etc/hostname", Mode: 0o644, Size: 5},
		{Kind: abi.KindRegular, Path: "etc/.wh.motd"},
	} {
		b, _ = tarwrite.AppendHeader(b, &e)
		b = tarwrite.AppendPadding(append(b, "name\n"[:e.Size]...), e.Size)
	}
	r := layer.NewReader(bytes.NewReader(tarwrite.AppendEnd(b)), layer.Limits{})
	for {
		var e abi.Entry
		err := r.Next(&e)
		if err == io.EOF {
			break
		}
		if err != nil {
			fmt.Println(err)
			return
		}
		body, _ := io.ReadAll(r)
		if hidden, ok := layer.Hidden(&e); ok {
			fmt.Println("hides", hidden)
			continue
		}
		fmt.Printf("%s at 0x%x: %q\n", e.Path, e.BodyOff, body)
	}
	end, err := r.Drain()
	fmt.Println(end.Marker, end.Trailing, err)

	cut := layer.NewReader(bytes.NewReader(b[:1026]), layer.Limits{})
	for err = nil; err == nil; err = cut.Next(new(abi.Entry)) {
	}
	fmt.Println(err)
	// Output:
	// etc at 0x200: ""
	// etc/hostname at 0x400: "name\n"
	// hides etc/motd
	// true 0 <nil>
	// tar at 0x402, entry "etc/hostname": body is cut, want 3 more bytes
}

package turbo_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"log"
	"strings"

	"github.com/convhost/convhost/plugins/overlaybd/turbo"
)

func Example() {
	var blob bytes.Buffer
	gz := gzip.NewWriter(&blob)
	err := turbo.Write(gz, turbo.Contents{FS: "ext4", Meta: strings.NewReader("metadata"), MetaSize: 8})
	if err != nil {
		log.Fatal(err)
	}
	if err := gz.Close(); err != nil {
		log.Fatal(err)
	}
	l, err := turbo.Read(&blob, turbo.Options{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(l.FS, l.Meta.Size, "bytes; the original layer is compressed:", l.Index != nil)
	// Output:
	// ext4 8 bytes; the original layer is compressed: false
}

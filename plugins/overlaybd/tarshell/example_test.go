package tarshell_test

import (
	"bytes"
	"fmt"
	"io"
	"log"

	"github.com/convhost/convhost/plugins/overlaybd/tarshell"
)

func Example() {
	var layer bytes.Buffer
	w, err := tarshell.NewWriter(&layer, 7)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := io.WriteString(w, "payload"); err != nil {
		log.Fatal(err)
	}
	if err := w.Close(); err != nil {
		log.Fatal(err)
	}
	shell, ok, err := tarshell.Find(bytes.NewReader(layer.Bytes()), int64(layer.Len()))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%v %+v of %d bytes\n", ok, shell, layer.Len())
	// Output:
	// true {Offset:1536 Size:7 Name:overlaybd.commit} of 3072 bytes
}

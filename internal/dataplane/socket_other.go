//go:build !unix

package dataplane

import (
	"os"

	"github.com/convhost/convhost/abi"
)

// SocketPair reports ErrUnsupported: descriptors cannot be passed here, use the Data stream.
func SocketPair() (Conn, *os.File, error) {
	return nil, nil, abi.Errorf(abi.ErrUnsupported, "data socket: this system cannot pass descriptors")
}

// NewSocket reports ErrUnsupported.
func NewSocket(f *os.File) (Conn, error) {
	f.Close()
	return nil, abi.Errorf(abi.ErrUnsupported, "data socket: this system cannot pass descriptors")
}

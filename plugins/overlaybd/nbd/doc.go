// Package nbd serves a disk by the network block device protocol, over any connection. It is pure Go: what it needs of the
// operating system is a socket.
//
//	err := nbd.Serve(conn, nbd.Export{Disk: disk})              // a client that negotiates: qemu, libnbd, nbd-client
//	err := nbd.Transmit(conn, nbd.Export{Disk: disk})           // the kernel's client, which was told everything else
//
// A connection is first negotiated (fixed newstyle; options GO, INFO, LIST, EXPORT_NAME and ABORT; no TLS, no structured
// replies), then it transmits requests: read, write, flush, trim, write zeroes, disconnect. Requests of one connection
// run at the same time, as many as Export.Parallel; answers come in any order, as the protocol allows.
//
// Clients are not trusted: lengths are limits before they are allocations, ranges are checked, and who breaks the
// protocol loses the connection (abi.ErrCorrupt, abi.ErrTruncated). A request that the disk cannot carry out is answered with
// an error number and changes nothing for others.
//
// Written from the protocol's description (nbd/doc/proto.md). All integers are big-endian.
package nbd

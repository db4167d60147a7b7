package nbd

import (
	"encoding/binary"
	"io"

	"github.com/convhost/convhost/abi"
)

var be = binary.BigEndian

// negotiation is the state of a connection before transmission.
type negotiation struct {
	conn     io.ReadWriter
	e        *Export
	noZeroes bool
}

// negotiate agrees on the export. transmit is false if the client has seen enough.
func negotiate(conn io.ReadWriter, e *Export) (transmit bool, err error) {
	hello := be.AppendUint64(nil, magicServer)
	hello = be.AppendUint64(hello, magicOption)
	hello = be.AppendUint16(hello, handFixed|handNoZeroes)
	if err := send(conn, hello); err != nil {
		return false, err
	}
	var flags [4]byte
	if err := read(conn, flags[:], "client flags"); err != nil {
		return false, ended(err) // only looked whether somebody is there
	}
	f := be.Uint32(flags[:])
	if f&^(handFixed|handNoZeroes) != 0 {
		return false, corrupt("client flags are %#x, want bits 0 and 1 only", f)
	}
	n := &negotiation{conn: conn, e: e, noZeroes: f&handNoZeroes != 0}
	for range maxOptions {
		done, transmit, err := n.option()
		if done || err != nil {
			return transmit, err
		}
	}
	return false, abi.Errorf(abi.ErrLimit, "nbd: client sent more than %d options", maxOptions)
}

func ended(err error) error {
	if err == io.EOF {
		return nil
	}
	return err
}

// option reads and answers one option.
func (n *negotiation) option() (done, transmit bool, err error) {
	var h [16]byte
	if err := read(n.conn, h[:], "option"); err != nil {
		return true, false, ended(err)
	}
	if m := be.Uint64(h[:]); m != magicOption {
		return true, false, corrupt("option has magic %#x", m)
	}
	opt, size := be.Uint32(h[8:]), be.Uint32(h[12:])
	if size > maxOption {
		if opt == optExportName || size > maxData {
			return true, false, abi.Errorf(abi.ErrLimit, "nbd: option %d has %d bytes, at most %d are read", opt, size, maxOption)
		}
		if _, err := io.CopyN(io.Discard, n.conn, int64(size)); err != nil {
			return true, false, abi.Errorf(abi.ErrTruncated, "nbd: connection ends in option %d", opt)
		}
		return false, false, n.answer(opt, repErrTooBig, nil)
	}
	data := make([]byte, size)
	if err := must(n.conn, data, "the data of an option"); err != nil {
		return true, false, err
	}
	switch opt {
	case optExportName:
		return n.exportName(string(data))
	case optAbort:
		return true, false, n.answer(opt, repAck, nil)
	case optList:
		return false, false, n.list(data)
	case optInfo, optGo:
		return n.info(opt, data)
	}
	return false, false, n.answer(opt, repErrUnsup, nil)
}

func (n *negotiation) answer(opt, kind uint32, data []byte) error {
	b := be.AppendUint64(nil, magicAnswer)
	b = be.AppendUint32(b, opt)
	b = be.AppendUint32(b, kind)
	b = be.AppendUint32(b, uint32(len(data)))
	return send(n.conn, append(b, data...))
}

// exportName is the old way in; it has no way to refuse but to hang up.
func (n *negotiation) exportName(name string) (done, transmit bool, err error) {
	if name != "" && name != n.e.Name {
		return true, false, abi.Errorf(abi.ErrNotFound, "nbd: client asks for an export named %.100q", name)
	}
	b := be.AppendUint64(nil, uint64(n.e.Disk.Size()))
	b = be.AppendUint16(b, n.e.Flags())
	if !n.noZeroes {
		b = append(b, make([]byte, 124)...)
	}
	return true, true, send(n.conn, b)
}

func (n *negotiation) list(data []byte) error {
	if len(data) != 0 {
		return n.answer(optList, repErrInvalid, nil)
	}
	b := be.AppendUint32(nil, uint32(len(n.e.Name)))
	if err := n.answer(optList, repServer, append(b, n.e.Name...)); err != nil {
		return err
	}
	return n.answer(optList, repAck, nil)
}

// info reads: u32 length of the name, name, u16 number of information requests, u16 each.
func (n *negotiation) info(opt uint32, data []byte) (done, transmit bool, err error) {
	bad := func() (bool, bool, error) { return false, false, n.answer(opt, repErrInvalid, nil) }
	if len(data) < 6 {
		return bad()
	}
	size := be.Uint32(data)
	if uint64(size) > uint64(len(data)-6) {
		return bad()
	}
	name, rest := string(data[4:4+size]), data[4+size:]
	if len(rest)-2 != 2*int(be.Uint16(rest)) {
		return bad()
	}
	if name != "" && name != n.e.Name {
		return false, false, n.answer(opt, repErrUnknown, nil)
	}
	b := be.AppendUint16(nil, infoExport)
	b = be.AppendUint64(b, uint64(n.e.Disk.Size()))
	b = be.AppendUint16(b, n.e.Flags())
	if err := n.answer(opt, repInfo, b); err != nil {
		return true, false, err
	}
	b = be.AppendUint16(nil, infoBlockSize)
	b = be.AppendUint32(b, 1)
	b = be.AppendUint32(b, 4096)
	b = be.AppendUint32(b, maxData)
	if err := n.answer(opt, repInfo, b); err != nil {
		return true, false, err
	}
	return opt == optGo, opt == optGo, n.answer(opt, repAck, nil)
}

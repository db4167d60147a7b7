package dataplane

import (
	"fmt"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"

	"github.com/convhost/convhost/abi"
)

// Codec carries abi messages over gRPC as ordinary protobuf, and everything else by gRPC's own codec: go-plugin's
// services live on the same server.
var Codec encoding.CodecV2 = codec{encoding.GetCodecV2(proto.Name)}

type codec struct{ next encoding.CodecV2 }

// Name is that of gRPC's protobuf codec: on the wire there is no difference.
func (codec) Name() string { return proto.Name }

// Marshal encodes v.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	m, ok := v.(abi.Message)
	if !ok {
		return c.next.Marshal(v)
	}
	if f, ok := m.(*abi.DataFrame); ok && len(f.Data) >= 4<<10 {
		return marshalFrame(f), nil
	}
	return mem.BufferSlice{mem.SliceBuffer(abi.Marshal(m))}, nil
}

// marshalFrame encodes f without copying its data: the data is the last field. gRPC may keep what it was given after
// SendMsg returns, so a sender must not write into Data again.
func marshalFrame(f *abi.DataFrame) mem.BufferSlice {
	head := *f
	head.Data = nil
	b := append(abi.Marshal(&head), dataTag)
	n := uint64(len(f.Data))
	for ; n >= 0x80; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return mem.BufferSlice{mem.SliceBuffer(append(b, byte(n))), mem.SliceBuffer(f.Data)}
}

// dataTag is field 11 of DataFrame with the wire type of bytes.
const dataTag = 11<<3 | 2

// Unmarshal decodes data into v.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(abi.Message)
	if !ok {
		return c.next.Unmarshal(data, v)
	}
	if data.Len() > MaxMessage {
		return fmt.Errorf("message of %d bytes", data.Len())
	}
	if f, ok := m.(*abi.DataFrame); ok {
		return decodeFrame(data.Materialize(), f)
	}
	buf := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer buf.Free()
	return abi.Unmarshal(buf.ReadOnlyData(), m)
}

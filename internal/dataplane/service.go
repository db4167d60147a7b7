package dataplane

import (
	"context"

	"google.golang.org/grpc"

	"github.com/convhost/convhost/abi"
)

// Methods of the service convhost.v1.Plugin, as protoc would name them.
const (
	serviceName = "convhost.v1.Plugin"
	methodCall  = "/convhost.v1.Plugin/Call"
	methodData  = "/convhost.v1.Plugin/Data"
)

// Server is the plugin's side of the service.
type Server interface {
	// Call runs one operation. An error of the operation is in the response; a Go error ends the connection.
	Call(ctx context.Context, req *abi.CallRequest) (*abi.CallResponse, error)
	// Data serves the data plane until it ends.
	Data(c Conn) error
}

// Register adds s to a server that was made with [Codec] forced.
func Register(r grpc.ServiceRegistrar, s Server) { r.RegisterService(&serviceDesc, s) }

var serviceDesc = grpc.ServiceDesc{
	ServiceName: serviceName,
	HandlerType: (*Server)(nil),
	Methods:     []grpc.MethodDesc{{MethodName: "Call", Handler: handleCall}},
	Streams:     []grpc.StreamDesc{{StreamName: "Data", Handler: handleData, ServerStreams: true, ClientStreams: true}},
	Metadata:    "abi.proto",
}

func handleCall(srv any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	var req abi.CallRequest
	if err := decode(&req); err != nil {
		return nil, err
	}
	return srv.(Server).Call(ctx, &req)
}

func handleData(srv any, s grpc.ServerStream) error { return srv.(Server).Data(newStreamConn(s, nil)) }

// Call invokes the plugin's Call.
func Call(ctx context.Context, cc grpc.ClientConnInterface, req *abi.CallRequest) (*abi.CallResponse, error) {
	resp := new(abi.CallResponse)
	err := cc.Invoke(ctx, methodCall, req, resp, grpc.ForceCodecV2(Codec), grpc.MaxCallRecvMsgSize(MaxMessage))
	return resp, err
}

// OpenData opens the plugin's Data stream. It ends with ctx or by Close.
func OpenData(ctx context.Context, cc grpc.ClientConnInterface) (Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	s, err := cc.NewStream(ctx, &serviceDesc.Streams[0], methodData, grpc.ForceCodecV2(Codec), grpc.MaxCallRecvMsgSize(2*abi.MaxData))
	if err != nil {
		cancel()
		return nil, err
	}
	return newStreamConn(s, cancel), nil
}

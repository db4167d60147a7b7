// Package native is the plugin's side of a native plugin: it serves one guest over go-plugin and gives each of its
// operations a session whose streams come from the host (package dataplane).
package native

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	plugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/internal/dataplane"
)

// Serve runs g for the host that started this process and does not return. Started by anybody else, it says what the
// program is and exits with status 1. The process ends when the host says so, or is gone.
func Serve(name string, g abi.Guest) {
	if os.Getenv(dataplane.Handshake.MagicCookieKey) != dataplane.Handshake.MagicCookieValue {
		fmt.Fprintf(os.Stderr, "This is %s, a format plugin for convhost. It is not run by hand: convhost starts it.\n", name)
		os.Exit(1)
	}
	s := &server{guest: g, ready: make(chan struct{}), stderr: os.Stderr}
	if err := s.inherit(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig: dataplane.Handshake,
		Plugins:         plugin.PluginSet{dataplane.PluginName: &grpcPlugin{s: s}},
		GRPCServer:      newServer,
		Logger:          hclog.New(&hclog.LoggerOptions{Name: name, Level: hclog.Warn, Output: os.Stderr, JSONFormat: true}),
	})
	os.Exit(0)
}

func newServer(opts []grpc.ServerOption) *grpc.Server {
	return grpc.NewServer(append(opts, grpc.ForceServerCodecV2(dataplane.Codec),
		grpc.MaxRecvMsgSize(dataplane.MaxMessage), grpc.MaxSendMsgSize(dataplane.MaxMessage),
		grpc.InitialWindowSize(dataplane.Window), grpc.InitialConnWindowSize(dataplane.ConnWindow),
		grpc.ReadBufferSize(dataplane.Buffer), grpc.WriteBufferSize(dataplane.Buffer))...)
}

type grpcPlugin struct {
	plugin.NetRPCUnsupportedPlugin
	s *server
}

// GRPCServer registers the service of abi.proto.
func (p *grpcPlugin) GRPCServer(_ *plugin.GRPCBroker, s *grpc.Server) error {
	dataplane.Register(s, p.s)
	return nil
}

// GRPCClient is for hosts only.
func (p *grpcPlugin) GRPCClient(context.Context, *plugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, abi.Errorf(abi.ErrInternal, "a plugin has no client")
}

// server runs the operations of one process.
type server struct {
	guest  abi.Guest
	mux    *mux
	ready  chan struct{} // closed when mux is there
	once   sync.Once
	stderr *os.File
	stdio  sync.Once
}

// startTimeout is how long a host without a data socket may take to open the data stream.
const startTimeout = time.Minute

// inherit takes the data socket over, if there is one.
func (s *server) inherit() error {
	v := os.Getenv(dataplane.EnvDataFD)
	if v == "" {
		time.AfterFunc(startTimeout, func() {
			select {
			case <-s.ready:
			default:
				leave()
			}
		})
		return nil
	}
	fd, err := strconv.ParseUint(v, 10, 16)
	if err != nil || fd < 3 {
		return fmt.Errorf("%s=%q is not a descriptor", dataplane.EnvDataFD, v)
	}
	c, err := dataplane.NewSocket(os.NewFile(uintptr(fd), "data socket"))
	if err != nil {
		return err
	}
	go s.serve(c)
	return nil
}

// Data implements dataplane.Server: the data plane where no socket was inherited.
func (s *server) Data(c dataplane.Conn) error {
	s.serve(c)
	return nil
}

// serve receives frames until the host is gone, and then leaves as well: nothing here may outlive the host.
func (s *server) serve(c dataplane.Conn) {
	first := false
	s.once.Do(func() {
		first = true
		s.mux = newMux(c)
		close(s.ready)
	})
	if first {
		s.mux.run()
		leave()
	}
}

// leave ends the process after removing the directory of the control socket, which a dead host cannot.
func leave() {
	if dir := os.Getenv(plugin.EnvUnixSocketDir); dir != "" {
		os.RemoveAll(dir)
	}
	os.Exit(0)
}

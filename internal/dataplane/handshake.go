package dataplane

import (
	plugin "github.com/hashicorp/go-plugin"

	"github.com/convhost/convhost/abi"
)

// Handshake is what host and plugin must agree on before they speak: the major version of the contract.
var Handshake = plugin.HandshakeConfig{
	ProtocolVersion:  abi.Major,
	MagicCookieKey:   "CONVHOST_PLUGIN",
	MagicCookieValue: "convhost.v1",
}

const (
	// PluginName is the name of the one plugin in the set that a process serves.
	PluginName = "convhost"
	// EnvDataFD names the descriptor of the data socket in the plugin's environment. Without it the host opens the
	// Data stream.
	EnvDataFD = "CONVHOST_DATA_FD"
	// MaxMessage is the most bytes of one gRPC message: a request of abi.MaxControl with what surrounds it.
	MaxMessage = abi.MaxControl + 1<<20
	// Window is how many bytes may be under way in the Data stream.
	Window = 4 << 20
	// ConnWindow is how many bytes may be under way in all streams.
	ConnWindow = 8 << 20
	// Buffer is what gRPC reads and writes at a time.
	Buffer = 256 << 10
	// MaxPayload is the most bytes of an operation's request or response, which travel inside a message of
	// abi.MaxControl.
	MaxPayload = abi.MaxControl - 1<<20
)

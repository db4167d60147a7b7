// Package native runs format plugins as subprocesses, over hashicorp/go-plugin.
//
//	p, err := native.Start(ctx, native.Config{Path: "/opt/plugins/overlaybd", SHA256: pinned, Log: log})
//	defer p.Close()
//	resp, err := p.Run(ctx, abi.OpConvertLayer, abi.Marshal(&req), grants)
//
// A native plugin is trusted with what the user may do: it is contained against faults, not against malice. What the
// package does hold:
//
//   - the bytes that are executed are the bytes that were hashed, whatever happens to the file meanwhile;
//   - the plugin gets no environment, no terminal and no descriptors but the streams of its operations, and those are
//     read-only or pipes;
//   - a plugin that crashes, exits, hangs or lies about its outputs fails its own calls with an error of class
//     abi.ErrPlugin that quotes its last words. The next Run starts a fresh process;
//   - a cancelled Run returns within a second; a process that does not obey is killed;
//   - no process survives its host, and nothing stays in the temporary directory.
//
// Calls of one Plugin run side by side in one process, so its death fails all of them.
//
// The streams of an operation (session.Config) are opened when the plugin asks. A layer or part that is an *os.File
// (or reads one: see [FileSection]) is passed as a descriptor and read by the plugin itself; other layers and all outputs go
// through pipes; other parts are read by request. Where descriptors cannot be passed, all of that goes through one
// gRPC stream. The layer's digests and the limits of an operation are checked by the session in the plugin's process;
// the size and digest of every output are compared with the bytes that arrived here.
//
// If Layer.At is such a file, Layer.Open is not called.
//
// The callbacks of session.Config are called from the plugin's receiving goroutine: they must not block. Readers must
// return when the context of Open ends, or when they are closed; Run waits for them.
package native

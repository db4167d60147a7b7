// Package dataplane is what a host and a native plugin share: the handshake, the gRPC codec and service of abi.proto
// for hand-written messages, and the frames that move layers, parts and outputs.
//
// Control is one gRPC call an operation. Bytes go beside it. On unix the plugin inherits one end of a socket pair, on
// which it asks for streams and gets descriptors (SCM_RIGHTS): the regular file if the host has the bytes at rest,
// else a pipe. Without that socket (Windows) the same frames pass through the Data stream of the gRPC service and
// carry the bytes themselves. A [Conn] is either of the two:
//
//	plugin                                  host
//	{Seq 7, DataOpen}            ------>
//	                             <------    {Seq 7, Descriptor, Offset, Size} + descriptor
//	{Seq 8, DataOpenSink, 0}     ------>
//	                             <------    {Seq 8, Descriptor} + descriptor of a pipe
//	… writes, closes the pipe …
//	{Seq 9, DataCloseSink, 0, Size, SHA-256} -->
//	                             <------    {Seq 9}  the host has the same bytes, and stored them
//
// A Conn's Recv is for one goroutine, Send for many.
package dataplane

package nbd

// Negotiation. Server: magicServer, magicOption, u16 handshake flags. Client: u32 client flags. Then options:
//
//	client  0 u64 magicOption   8 u32 option  12 u32 length, then data
//	server  0 u64 magicAnswer   8 u32 option  12 u32 type    16 u32 length, then data
//
// EXPORT_NAME alone is answered with u64 size, u16 transmission flags and, unless NO_ZEROES was agreed, 124 zeros.
const (
	magicServer = 0x4e42444d41474943 // "NBDMAGIC"
	magicOption = 0x49484156454f5054 // "IHAVEOPT"
	magicAnswer = 0x0003e889045565a9

	handFixed    = 1 // of both sides
	handNoZeroes = 2

	optExportName = 1
	optAbort      = 2
	optList       = 3
	optInfo       = 6
	optGo         = 7

	repAck        = 1
	repServer     = 2
	repInfo       = 3
	repErrUnsup   = 1<<31 + 1
	repErrInvalid = 1<<31 + 3
	repErrUnknown = 1<<31 + 6
	repErrTooBig  = 1<<31 + 9

	infoExport    = 0 // u16 0, u64 size, u16 transmission flags
	infoBlockSize = 3 // u16 3, u32 least, u32 preferred, u32 most

	maxOption  = 8 << 10 // bytes of an option: a name has at most 4096
	maxOptions = 1000    // of one negotiation
)

// Transmission.
//
//	request  0 u32 magicRequest  4 u16 flags  6 u16 type  8 u64 cookie  16 u64 offset  24 u32 length, then data of a write
//	reply    0 u32 magicReply    4 u32 error  8 u64 cookie, then data of a read
const (
	magicRequest = 0x25609513
	magicReply   = 0x67446698
	requestSize  = 28
	replySize    = 16

	cmdRead       = 0
	cmdWrite      = 1
	cmdDisconnect = 2
	cmdFlush      = 3
	cmdTrim       = 4
	cmdZero       = 6

	cmdFUA = 1 // flag: durable before it is answered

	errPerm   = 1
	errIO     = 5
	errInval  = 22
	errNoSpc  = 28
	errNotSup = 95

	maxData = 32 << 20 // bytes of one read or write: what clients count on
)

// Transmission flags of an export, as clients and the kernel take them.
const (
	FlagHasFlags  = 1 << 0
	FlagReadOnly  = 1 << 1
	FlagFlush     = 1 << 2
	FlagFUA       = 1 << 3
	FlagTrim      = 1 << 5
	FlagZero      = 1 << 6
	FlagMultiConn = 1 << 8
)

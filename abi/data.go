package abi

// What a DataFrame asks for or tells. Except for DataCancel the plugin asks and the host answers.
const (
	DataOpen      int32 = 1  // open the layer's stored bytes as a stream; answer: descriptor, Offset, Size; or no descriptor
	DataRead      int32 = 2  // the next Size bytes of that stream, when there is no descriptor; no Data: its end
	DataEnd       int32 = 3  // a pipe has ended (Role RoleSink: broke, with Index); answer: the host's error, if that is why
	DataOpenAt    int32 = 4  // open Role, Index for random access; answer as DataOpen
	DataReadAt    int32 = 5  // Size bytes of Role, Index at Offset; fewer only at the end
	DataOpenSink  int32 = 6  // open output Index; answer: descriptor to write to, or none
	DataWrite     int32 = 7  // append Data to output Index, when there is no descriptor
	DataCloseSink int32 = 8  // output Index is complete; Data: an encoded StreamInfo
	DataAbortSink int32 = 9  // drop output Index
	DataLog       int32 = 10 // Size: level, Data: text; no answer
	DataProgress  int32 = 11 // Offset done of Size; no answer
	DataConsumed  int32 = 12 // Size more stored bytes of the layer were read; no answer
	DataSync      int32 = 13 // answered when all frames of the call before it are done
	DataCancel    int32 = 14 // host to plugin: end the call
	DataReady     int32 = 15 // Data: an encoded AttachResponse; see Host.Ready
)

// MaxData is the most bytes that one DataFrame carries.
const MaxData = 1 << 20

// DataFrame is one message of the data plane of a native plugin: on its data socket, or in the Data stream.
type DataFrame struct {
	Call       uint64 // CallRequest.ID
	Seq        uint64 // number of a request, repeated by its answer; 0: no answer is wanted
	Kind       int32
	Role       Role
	Index      int
	Offset     int64
	Size       int64
	Descriptor bool // a file descriptor travels with the frame
	Failed     bool
	Error      ErrorDetail
	Data       []byte
	Unknown
}

// LayerGrant describes the layer that an operation may read.
type LayerGrant struct {
	MediaType string
	Digest    string // of the stored bytes, "" unknown
	Size      int64  // of the stored bytes, -1 unknown
	DiffID    string // of the tar, "" unknown
	Random    bool   // the stored bytes can be opened for random access too
	Unknown
}

// LimitGrant are the allowances of an operation.
type LimitGrant struct {
	OutputBase   int64 // output is allowed up to OutputBase + OutputFactor × bytes of input
	OutputFactor int64
	Sinks        int
	Entries      int64
	PathBytes    int
	NameBytes    int
	HeaderBytes  int64
	Xattrs       int
	XattrBytes   int
	FileBytes    int64
	HoleBytes    int64
	SparseChunks int
	RawBytes     int64 // decompressed bytes of the layer
	Ratio        int64
	RatioFloor   int64
	Window       uint64
	Unknown
}

// Grants tell a native plugin which streams it may open in a call. In the other runtimes the host knows by itself.
type Grants struct {
	Input    Role // the one role with which the layer may be opened
	HasLayer bool
	Layer    LayerGrant
	Parts    []int64 // sizes
	Parents  []int64
	Dicts    []int64
	HasSinks bool
	Limits   LimitGrant
	Unknown
}

func (m *DataFrame) fields(c *coder) {
	number(c, 1, &m.Call)
	number(c, 2, &m.Seq)
	number(c, 3, &m.Kind)
	number(c, 4, &m.Role)
	number(c, 5, &m.Index)
	number(c, 6, &m.Offset)
	number(c, 7, &m.Size)
	c.boolean(8, &m.Descriptor)
	c.boolean(9, &m.Failed)
	c.sub(10, &m.Error)
	c.bytes(11, &m.Data)
}

func (m *LayerGrant) fields(c *coder) {
	c.str(1, &m.MediaType)
	c.str(2, &m.Digest)
	number(c, 3, &m.Size)
	c.str(4, &m.DiffID)
	c.boolean(5, &m.Random)
}

func (m *LimitGrant) fields(c *coder) {
	number(c, 1, &m.OutputBase)
	number(c, 2, &m.OutputFactor)
	number(c, 3, &m.Sinks)
	number(c, 4, &m.Entries)
	number(c, 5, &m.PathBytes)
	number(c, 6, &m.NameBytes)
	number(c, 7, &m.HeaderBytes)
	number(c, 8, &m.Xattrs)
	number(c, 9, &m.XattrBytes)
	number(c, 10, &m.FileBytes)
	number(c, 11, &m.HoleBytes)
	number(c, 12, &m.SparseChunks)
	number(c, 13, &m.RawBytes)
	number(c, 14, &m.Ratio)
	number(c, 15, &m.RatioFloor)
	number(c, 16, &m.Window)
}

func (m *Grants) fields(c *coder) {
	number(c, 1, &m.Input)
	c.boolean(2, &m.HasLayer)
	c.sub(3, &m.Layer)
	numbers(c, 4, &m.Parts)
	numbers(c, 5, &m.Parents)
	numbers(c, 6, &m.Dicts)
	c.boolean(7, &m.HasSinks)
	c.sub(8, &m.Limits)
}

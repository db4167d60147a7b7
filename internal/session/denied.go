package session

import "github.com/convhost/convhost/abi"

// Denied is a host that grants nothing: what a plugin gets while it describes itself.
type Denied struct{}

var _ abi.Host = Denied{}

var errDenied = abi.Errorf(abi.ErrDenied, "nothing is granted to Describe")

// Open implements abi.Host.
func (Denied) Open(abi.Role, int) (abi.Handle, error) { return 0, errDenied }

// OpenSink implements abi.Host.
func (Denied) OpenSink(int, abi.SinkFilter, int) (abi.Handle, error) { return 0, errDenied }

// Read implements abi.Host.
func (Denied) Read(abi.Handle, []byte) (int, error) { return 0, errDenied }

// ReadAt implements abi.Host.
func (Denied) ReadAt(abi.Handle, []byte, int64) (int, error) { return 0, errDenied }

// Size implements abi.Host.
func (Denied) Size(abi.Handle) (int64, error) { return 0, errDenied }

// Write implements abi.Host.
func (Denied) Write(abi.Handle, []byte) error { return errDenied }

// Copy implements abi.Host.
func (Denied) Copy(abi.Handle, abi.Handle, int64, int64) (int64, error) { return 0, errDenied }

// Info implements abi.Host.
func (Denied) Info(abi.Handle) (abi.StreamInfo, error) { return abi.StreamInfo{}, errDenied }

// Close implements abi.Host.
func (Denied) Close(abi.Handle) (abi.StreamInfo, error) { return abi.StreamInfo{}, errDenied }

// Entries implements abi.Host.
func (Denied) Entries(abi.Handle, []byte, abi.Handle) (int, error) { return 0, errDenied }

// NewPlan implements abi.Host.
func (Denied) NewPlan(*abi.PlanSpec) (abi.Handle, error) { return 0, errDenied }

// JobStream implements abi.Host.
func (Denied) JobStream(abi.Handle, abi.Handle, int64, uint64) (int, error) { return 0, errDenied }

// JobBytes implements abi.Host.
func (Denied) JobBytes(abi.Handle, []byte, uint64) (int, error) { return 0, errDenied }

// JobRange implements abi.Host.
func (Denied) JobRange(abi.Handle, abi.Handle, abi.Range, uint64) error { return errDenied }

// Collect implements abi.Host.
func (Denied) Collect([]byte, int) (int, error) { return 0, errDenied }

// ClosePlan implements abi.Host.
func (Denied) ClosePlan(abi.Handle) (abi.PlanInfo, error) { return abi.PlanInfo{}, errDenied }

// Sum implements abi.Host.
func (Denied) Sum(abi.Digest, []byte) ([32]byte, error) { return [32]byte{}, errDenied }

// Encode implements abi.Host.
func (Denied) Encode(_ abi.Codec, _ int, dst, _ []byte) ([]byte, error) { return dst, errDenied }

// Decode implements abi.Host.
func (Denied) Decode(_ abi.Codec, dst, _ []byte, _ int) ([]byte, error) { return dst, errDenied }

// Log implements abi.Host.
func (Denied) Log(int, string) {}

// Progress implements abi.Host.
func (Denied) Progress(int64, int64) {}

// Ready implements abi.Host.
func (Denied) Ready(*abi.AttachResponse) error { return errDenied }

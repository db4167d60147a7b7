package abi

import "errors"

// The field numbers of abi.proto, one method a message.

func (m *Description) fields(c *coder) {
	c.str(1, &m.Name)
	c.str(2, &m.Version)
	c.str(3, &m.Summary)
	number(c, 4, &m.Major)
	number(c, 5, &m.Minor)
	numbers(c, 6, &m.Ops)
	number(c, 7, &m.Input)
	c.boolean(8, &m.Chained)
	list(c, 9, &m.Options)
	list(c, 10, &m.Markers)
	c.strs(11, &m.Needs)
	c.strs(12, &m.Uses)
	number(c, 13, &m.Memory)
	c.str(14, &m.ArtifactType)
	c.boolean(15, &m.Dicts)
	c.strs(16, &m.Refs)
}

func (m *OptionSpec) fields(c *coder) {
	c.str(1, &m.Name)
	c.str(2, &m.Help)
	c.str(3, &m.Default)
	c.strs(4, &m.Values)
}

func (m *Marker) fields(c *coder) { c.str(1, &m.MediaType); c.str(2, &m.Annotation) }

func (m *LayerInfo) fields(c *coder) {
	number(c, 1, &m.Index)
	number(c, 2, &m.Count)
	c.str(3, &m.MediaType)
	c.str(4, &m.Digest)
	number(c, 5, &m.Size)
	c.str(6, &m.DiffID)
	c.str(7, &m.ChainID)
	c.dict(8, &m.Annotations)
}

func (m *PartInfo) fields(c *coder) {
	c.str(1, &m.Name)
	number(c, 2, &m.Layer)
	c.str(3, &m.MediaType)
	c.str(4, &m.Digest)
	number(c, 5, &m.Size)
	c.dict(6, &m.Annotations)
	c.str(7, &m.Ref)
}

func (m *ConvertRequest) fields(c *coder) {
	c.sub(1, &m.Layer)
	c.dict(3, &m.Options)
	list(c, 4, &m.Parents)
	list(c, 5, &m.Dicts)
	c.strs(7, &m.Features)
}

func (m *Part) fields(c *coder) {
	number(c, 1, &m.Sink)
	c.str(2, &m.Name)
	c.str(3, &m.MediaType)
	c.str(4, &m.Digest)
	number(c, 5, &m.Size)
	c.str(6, &m.DiffID)
	c.dict(7, &m.Annotations)
	c.boolean(8, &m.Aux)
}

func (m *ConvertResponse) fields(c *coder) {
	list(c, 1, &m.Parts)
	c.bytes(2, &m.State)
	c.strs(3, &m.Warnings)
}

func (m *MergeLayer) fields(c *coder) {
	c.sub(1, &m.Layer)
	numbers(c, 2, &m.Parts)
	c.bytes(3, &m.State)
}

func (m *MergeRequest) fields(c *coder) {
	list(c, 1, &m.Layers)
	list(c, 2, &m.Parts)
	c.str(3, &m.Platform)
	c.dict(4, &m.Options)
	c.str(5, &m.ManifestMediaType)
	c.bytes(6, &m.Config)
	list(c, 7, &m.Dicts)
	c.strs(8, &m.Features)
}

func (m *OutLayer) fields(c *coder) {
	number(c, 1, &m.Part)
	c.sub(2, &m.New)
	number(c, 3, &m.Source)
	c.str(4, &m.CreatedBy)
	c.str(5, &m.Comment)
	c.dict(6, &m.Annotations)
}

func (m *MergeResponse) fields(c *coder) {
	list(c, 1, &m.Layers)
	c.dict(2, &m.Annotations)
	c.strs(3, &m.OSFeatures)
	c.str(4, &m.ConfigMediaType)
	c.str(5, &m.ArtifactType)
	c.strs(6, &m.Warnings)
}

func (m *UnpackRequest) fields(c *coder) {
	number(c, 1, &m.Layer)
	list(c, 2, &m.Parts)
	c.dict(3, &m.Options)
	c.bytes(4, &m.Config)
	c.strs(5, &m.Features)
}

func (m *UnpackResponse) fields(c *coder) { number(c, 1, &m.Entries); c.strs(2, &m.Warnings) }

func (m *CheckRequest) fields(c *coder) {
	list(c, 1, &m.Parts)
	c.dict(2, &m.Options)
	c.boolean(3, &m.Deep)
	c.bytes(4, &m.Config)
}

func (m *CheckResponse) fields(c *coder) { list(c, 1, &m.Problems); c.dict(2, &m.Facts) }

func (m *AttachRequest) fields(c *coder) {
	list(c, 1, &m.Parts)
	c.dict(2, &m.Options)
	c.str(3, &m.Target)
	c.bytes(4, &m.Config)
	c.str(5, &m.ID)
	c.str(6, &m.StateDir)
	c.strs(7, &m.Locations)
	c.strs(8, &m.Features)
}

func (m *AttachResponse) fields(c *coder) {
	c.str(1, &m.ID)
	c.str(2, &m.Device)
	c.bytes(3, &m.Runtime)
}

func (m *DetachRequest) fields(c *coder) {
	c.str(1, &m.ID)
	c.str(2, &m.StateDir)
	c.boolean(3, &m.Force)
}

func (m *DetachResponse) fields(*coder) {}

func (m *ErrorDetail) fields(c *coder) {
	number(c, 1, &m.Class)
	c.str(2, &m.Message)
	c.str(3, &m.Format)
	c.str(4, &m.Entry)
	c.str(5, &m.Field)
	number(c, 6, &m.Off)
	c.str(7, &m.Got)
	c.str(8, &m.Want)
	c.str(9, &m.Limit)
}

func (m *CallRequest) fields(c *coder) {
	number(c, 1, &m.Op)
	c.bytes(2, &m.Request)
	number(c, 3, &m.ID)
	c.sub(4, &m.Grants)
}

func (m *CallResponse) fields(c *coder) {
	c.bytes(1, &m.Response)
	c.boolean(2, &m.Failed)
	c.sub(3, &m.Error)
}

// DetailOf returns what crosses the ABI of err.
func DetailOf(err error) ErrorDetail {
	d := ErrorDetail{Class: ClassOf(err), Message: err.Error(), Limit: LimitOf(err)}
	var f *FormatError
	if errors.As(err, &f) {
		d.Format, d.Entry, d.Field, d.Off, d.Got, d.Want = f.Format, f.Entry, f.Field, f.Off, f.Got, f.Want
	}
	return d
}

// Err turns a detail back into an error of its class. A class this version does not know becomes ErrPlugin.
func (m *ErrorDetail) Err() error {
	err := m.err()
	if m.Limit != "" && (m.Class == ErrLimit || m.Class == ErrTimeout) {
		err = WithLimit(err, m.Limit)
	}
	return err
}

func (m *ErrorDetail) err() error {
	class := m.Class
	if _, ok := classNames[class]; !ok {
		class = ErrPlugin
	}
	if m.Format != "" {
		f := &FormatError{Class: class, Format: m.Format, Entry: m.Entry, Field: m.Field, Off: m.Off, Got: m.Got, Want: m.Want}
		if f.Error() == m.Message {
			return f
		}
		return &detailError{msg: m.Message, inner: f}
	}
	return Errorf(class, "%s", m.Message)
}

type detailError struct {
	msg   string
	inner *FormatError
}

func (e *detailError) Error() string { return e.msg }
func (e *detailError) Unwrap() error { return e.inner }

// MarshalError and UnmarshalError are DetailOf and Err with the encoding around.
func MarshalError(err error) []byte {
	d := DetailOf(err)
	return Marshal(&d)
}

// UnmarshalError decodes what MarshalError made; bytes that are not such a message become an ErrPlugin.
func UnmarshalError(b []byte) error {
	var d ErrorDetail
	if err := Unmarshal(b, &d); err != nil {
		return err
	}
	return d.Err()
}

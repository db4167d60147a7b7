package abi

import (
	"context"
	"errors"
	"fmt"
)

// Class is one of the few kinds of failure that convhost distinguishes. Every error that leaves the host, a
// plugin or the command wraps exactly one class, so that callers test with [errors.Is] and never with text:
//
//	if errors.Is(err, abi.ErrCorrupt) { … }
//
// A class crosses the ABI as its number. Numbers are never reused.
type Class int

// The classes. ErrTruncated and ErrDigest are also ErrCorrupt for errors.Is.
const (
	ErrInternal    Class = 1  // a fault of convhost itself; please report it
	ErrInvalid     Class = 2  // the request is wrong: a reference, an option, a combination of both
	ErrUnsupported Class = 3  // valid, but this format, plugin or version cannot do it
	ErrCorrupt     Class = 4  // bytes break the rules of their format
	ErrTruncated   Class = 5  // bytes end too early
	ErrDigest      Class = 6  // bytes do not have the digest or size that was promised
	ErrLimit       Class = 7  // a limit was reached: size, count, depth, memory, ratio
	ErrNotFound    Class = 8  // a blob, reference, plugin or member that does not exist
	ErrExists      Class = 9  // would overwrite something, or somebody else changed it meanwhile
	ErrDenied      Class = 10 // permission, credentials, or a grant that was not given
	ErrPlugin      Class = 11 // a plugin broke the contract: trap, exit, lie, foreign handle
	ErrTimeout     Class = 12 // a time limit was reached
	ErrCanceled    Class = 13 // the caller gave up (also context.Canceled)
	ErrIO          Class = 14 // disk, network or registry failed
	ErrMismatch    Class = 15 // verify found a difference between source and converted image
)

var classNames = map[Class]string{
	ErrInternal: "internal error", ErrInvalid: "invalid request", ErrUnsupported: "not supported",
	ErrCorrupt: "corrupt data", ErrTruncated: "truncated data", ErrDigest: "digest mismatch",
	ErrLimit: "limit reached", ErrNotFound: "not found", ErrExists: "conflict", ErrDenied: "denied",
	ErrPlugin: "plugin broke the contract", ErrTimeout: "time limit reached", ErrCanceled: "canceled",
	ErrIO: "input/output failed", ErrMismatch: "images differ",
}

// Error returns the class's name in a few words.
func (c Class) Error() string {
	if s, ok := classNames[c]; ok {
		return s
	}
	return fmt.Sprintf("error class %d", int(c))
}

// Is makes ErrTruncated and ErrDigest kinds of ErrCorrupt, and ErrCanceled equal to context.Canceled.
func (c Class) Is(target error) bool {
	switch target {
	case ErrCorrupt:
		return c == ErrTruncated || c == ErrDigest
	case context.Canceled:
		return c == ErrCanceled
	case context.DeadlineExceeded:
		return c == ErrTimeout
	}
	return false
}

// ClassOf returns the class that err wraps. Context errors map to ErrCanceled and ErrTimeout; any other error
// without a class is ErrInternal. ClassOf(nil) is 0.
func ClassOf(err error) Class {
	if err == nil {
		return 0
	}
	var c Class
	switch {
	case errors.As(err, &c):
		return c
	case errors.Is(err, context.Canceled):
		return ErrCanceled
	case errors.Is(err, context.DeadlineExceeded):
		return ErrTimeout
	}
	return ErrInternal
}

// Errorf returns an error of a class with a formatted message; %w works as in fmt.Errorf. The class does not
// appear in the text: the message must say by itself what is wrong.
func Errorf(c Class, format string, args ...any) error {
	return &classError{class: c, err: fmt.Errorf(format, args...)}
}

type classError struct {
	class Class
	err   error
}

func (e *classError) Error() string   { return e.err.Error() }
func (e *classError) Unwrap() []error { return []error{e.class, e.err} }

// FormatError says where in which format what was wrong. Codecs return it, the host adds descriptor and plugin.
// The fields cross the ABI as fields.
type FormatError struct {
	Class  Class  // ErrCorrupt, ErrTruncated, ErrDigest, ErrLimit or ErrUnsupported
	Format string // short name of the format: "tar", "gzip", "rafs v6 bootstrap"
	Entry  string // path or member that was being read, "" if none
	Field  string // field or rule in the format's own words
	Off    int64  // byte offset in the stream or file that is named by Format; -1 if unknown
	Got    string // value found, "" if it says nothing
	Want   string // what would have been right
}

// Error puts the fields into one line: `tar at 0x1a00, entry "etc/x": size is -5, want 0 or more`.
func (e *FormatError) Error() string {
	s := e.Format
	if e.Off >= 0 {
		s += fmt.Sprintf(" at 0x%x", e.Off)
	}
	if e.Entry != "" {
		s += fmt.Sprintf(", entry %q", e.Entry)
	}
	s += ": " + e.Field
	if e.Got != "" {
		s += " is " + e.Got
	}
	if e.Want != "" {
		s += ", want " + e.Want
	}
	return s
}

// Unwrap returns the class, for errors.Is.
func (e *FormatError) Unwrap() error { return e.Class }

// Limits that users can raise, by the names that they have in package host: what LimitOf returns.
const (
	LimitLayerBytes   = "LayerBytes"   // one layer, decompressed
	LimitLayerRatio   = "LayerRatio"   // decompressed bytes for one stored byte
	LimitPluginMemory = "PluginMemory" // of a sandboxed plugin
	LimitPluginTime   = "PluginTime"   // of one operation
	LimitPluginStall  = "PluginStall"  // without a call to the host
	LimitOutput       = "OutputBase"   // what a plugin writes; also OutputFactor
)

// WithLimit says which of the user's limits err, an ErrLimit or ErrTimeout, ran into. The text stays as it is.
func WithLimit(err error, name string) error { return &limited{err, name} }

// LimitOf returns the limit that an error ran into if users can raise it, else "".
func LimitOf(err error) string {
	var l *limited
	if errors.As(err, &l) {
		return l.name
	}
	return ""
}

type limited struct {
	err  error
	name string
}

func (e *limited) Error() string { return e.err.Error() }
func (e *limited) Unwrap() error { return e.err }

package main

import (
	"github.com/convhost/convhost/abi"
)

// exitCode maps an error to the exit code. The table is public: docs/scripting.md has it, and a test compares the two.
// Codes are never reused.
func exitCode(err error) int {
	if err == nil {
		return 0
	}
	switch abi.ClassOf(err) {
	case abi.ErrInvalid:
		return 2
	case abi.ErrUnsupported:
		return 3
	case abi.ErrCorrupt:
		return 4
	case abi.ErrTruncated:
		return 5
	case abi.ErrDigest:
		return 6
	case abi.ErrLimit:
		return 7
	case abi.ErrNotFound:
		return 8
	case abi.ErrExists:
		return 9
	case abi.ErrDenied:
		return 10
	case abi.ErrPlugin:
		return 11
	case abi.ErrTimeout:
		return 12
	case abi.ErrIO:
		return 14
	case abi.ErrMismatch:
		return 15
	case abi.ErrCanceled:
		return 130
	}
	return 1 // abi.ErrInternal, and what a later version may bring
}

// problem is an error as JSON: one line on standard error with --progress json.
type problem struct {
	Class   int    `json:"class"`
	Name    string `json:"name"`
	Exit    int    `json:"exit"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}

// report prints an error and, if there is one, what can be done about it.
func (a *app) report(err error) {
	hint := a.hint(err)
	w := a.errorWriter()
	if a.set.progress == progressJSON {
		c := abi.ClassOf(err)
		if b, e := message("error", problem{int(c), c.Error(), exitCode(err), clean(err.Error()), hint}); e == nil {
			w.Write(b) // nobody is left to tell if this fails
			return
		}
	}
	text := "convhost: " + clean(err.Error()) + "\n"
	if hint != "" {
		text += "hint: " + clean(hint) + "\n"
	}
	w.Write([]byte(text))
}

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/transport"
)

// hinted is an error that knows what can be done about it.
type hinted struct {
	error
	hint string
}

func (h *hinted) Unwrap() error { return h.error }

func withHint(err error, format string, args ...any) error {
	return &hinted{err, fmt.Sprintf(format, args...)}
}

// usage is an error in how the command was called.
func usage(cmd *cobra.Command, format string, args ...any) error {
	return withHint(abi.Errorf(abi.ErrInvalid, format, args...), "%s --help shows how it is called", cmd.CommandPath())
}

// hint finds out what can be done about an error: by what carries it, else by what the command finds when it looks.
func (a *app) hint(err error) string {
	if h := (*hinted)(nil); errors.As(err, &h) {
		return h.hint
	}
	if a.ask == nil {
		return ""
	}
	return a.ask(err)
}

// limitFlags are the flags of the limits that can be raised. Others have none: they are those of registries, runtimes and
// formats.
var limitFlags = map[string]string{
	abi.LimitLayerBytes:   "limit-layer-size",
	abi.LimitLayerRatio:   "limit-ratio",
	abi.LimitPluginMemory: "limit-memory",
	abi.LimitPluginTime:   "limit-time",
	abi.LimitPluginStall:  "limit-stall",
	abi.LimitOutput:       "limit-output-base",
}

// hints looks at the references and formats of a command that failed. It never reads the error's text.
type hints struct {
	engine  engine
	sources []string // references that were read
	targets []string
	formats []string
}

func (h hints) of(err error) string {
	switch abi.ClassOf(err) {
	case abi.ErrNotFound:
		return h.unknownFormat()
	case abi.ErrDenied:
		for _, ref := range append(h.sources, h.targets...) {
			if r, err := transport.ParseReference(ref); err == nil && r.Transport == transport.Docker {
				return "docker login " + r.Host + " stores credentials that convhost uses too"
			}
		}
	case abi.ErrLimit, abi.ErrTimeout:
		if flag := limitFlags[abi.LimitOf(err)]; flag != "" {
			return "--" + flag + " raises that limit, if you trust the image and the plugin"
		}
	case abi.ErrInternal:
		return "this is a fault of convhost: please report it with the command and its output with -vv"
	}
	return ""
}

// unknownFormat tells of a format without plugin. It is asked after a failure: plugins load from the cache by then.
func (h hints) unknownFormat() string {
	for _, f := range h.formats {
		if f == "" || strings.ContainsAny(f, `/\`) {
			continue
		}
		known := false
		for _, p := range h.engine.Plugins(context.Background()) {
			known = known || p.Name == f
		}
		if !known {
			return "convhost plugin list shows the formats; --plugin-dir adds a directory with more"
		}
	}
	return ""
}

package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

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

// hints looks at the references and formats of a command that failed. It never reads the error's text.
type hints struct {
	engine  engine
	sources []string // references that were read
	targets []string
	formats []string
	options transport.Options
}

func (h hints) of(err error) string {
	switch abi.ClassOf(err) {
	case abi.ErrNotFound, abi.ErrInvalid:
		if s := h.unknownFormat(); s != "" {
			return s
		}
		return h.tags()
	case abi.ErrDenied:
		for _, ref := range append(h.sources, h.targets...) {
			if r, err := transport.ParseReference(ref); err == nil && r.Transport == transport.Docker {
				return "docker login " + r.Host + " stores credentials that convhost uses too"
			}
		}
	case abi.ErrLimit:
		return "convhost help options lists the limits that can be raised"
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

// tags lists the names in a local place when the one that was asked for is not among them, or none was given.
func (h hints) tags() string {
	for _, ref := range h.sources {
		r, err := transport.ParseReference(ref)
		if err != nil || r.Transport == transport.Docker {
			continue
		}
		names := localTags(r, h.options)
		known := r.Tag == "" && len(names) == 1
		for _, n := range names {
			known = known || n == r.Tag
		}
		if len(names) == 0 || known {
			continue
		}
		const most = 12
		more := ""
		if len(names) > most {
			names, more = names[:most], ", …"
		}
		return fmt.Sprintf("%s:%s has the tags %s", r.Transport, r.Path, strings.Join(names, ", ")+more)
	}
	return ""
}

// localTags reads the names in a layout or archive, nil if it cannot.
func localTags(r transport.Reference, opts transport.Options) []string {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	r.Tag, r.Digest, r.Index = "", "", -1
	src, err := transport.OpenSource(ctx, r, opts)
	if err != nil {
		return nil
	}
	defer src.Close()
	names, err := src.Tags(ctx)
	if err != nil {
		return nil
	}
	return names
}

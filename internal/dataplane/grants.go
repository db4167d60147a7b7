package dataplane

import (
	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/internal/session"
)

// GrantsOf describes what cfg grants, for the plugin.
func GrantsOf(cfg *session.Config) abi.Grants {
	g := abi.Grants{
		Input: cfg.Input, HasSinks: cfg.OpenSink != nil,
		Parts: sizes(cfg.Parts), Parents: sizes(cfg.Parents), Dicts: sizes(cfg.Dicts),
		Limits: limitsOf(&cfg.Limits),
	}
	if l := cfg.Layer; l != nil {
		g.HasLayer = true
		g.Layer = abi.LayerGrant{MediaType: l.MediaType, Digest: l.Digest, Size: l.Size, DiffID: l.DiffID, Random: l.At != nil}
	}
	return g
}

func sizes(parts []session.Part) (out []int64) {
	for i := range parts {
		out = append(out, parts[i].Size)
	}
	return out
}

func limitsOf(l *session.Limits) abi.LimitGrant {
	return abi.LimitGrant{
		OutputBase: l.OutputBase, OutputFactor: l.OutputFactor, Sinks: l.Sinks,
		Entries: l.Layer.Entries, PathBytes: l.Layer.PathBytes, NameBytes: l.Layer.NameBytes,
		HeaderBytes: l.Layer.HeaderBytes, Xattrs: l.Layer.Xattrs, XattrBytes: l.Layer.XattrBytes,
		FileBytes: l.Layer.FileBytes, HoleBytes: l.Layer.HoleBytes, SparseChunks: l.Layer.SparseChunks,
		RawBytes: l.Inflate.Raw, Ratio: l.Inflate.Ratio, RatioFloor: l.Inflate.RatioFloor, Window: l.Inflate.Window,
	}
}

// Limits is the inverse of what [GrantsOf] does with Config.Limits.
func Limits(g *abi.LimitGrant) session.Limits {
	var l session.Limits
	l.OutputBase, l.OutputFactor, l.Sinks = g.OutputBase, g.OutputFactor, g.Sinks
	l.Layer.Entries, l.Layer.PathBytes, l.Layer.NameBytes = g.Entries, g.PathBytes, g.NameBytes
	l.Layer.HeaderBytes, l.Layer.Xattrs, l.Layer.XattrBytes = g.HeaderBytes, g.Xattrs, g.XattrBytes
	l.Layer.FileBytes, l.Layer.HoleBytes, l.Layer.SparseChunks = g.FileBytes, g.HoleBytes, g.SparseChunks
	l.Inflate.Raw, l.Inflate.Ratio, l.Inflate.RatioFloor, l.Inflate.Window = g.RawBytes, g.Ratio, g.RatioFloor, g.Window
	return l
}

package plugintest

import (
	"context"
	"encoding/binary"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/sdk"
)

var smallSet = sync.OnceValue(func() []source { return makeLayerSet(512 << 10) })

// failures tells which cases a plugin fails.
func failures(t *testing.T, cfg Config) map[string]error {
	t.Helper()
	k, err := newKit(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	k.set = smallSet()
	out := map[string]error{}
	for _, c := range Cases() {
		var no notApplicable
		if err := k.try(c); err != nil && !errors.As(err, &no) {
			out[c.Name] = err
		}
	}
	if err := k.close(); err != nil {
		t.Error(err)
	}
	return out
}

// TestRightPlugin: nothing is wrong with store.
func TestRightPlugin(t *testing.T) {
	Run(t, Config{Open: InProcess(sdk.InProcess(store{}))})
}

// guestFunc is a guest that changes what another one does.
type guestFunc func(ctx context.Context, op abi.Op, req []byte, host abi.Host) ([]byte, error)

func (f guestFunc) Call(ctx context.Context, op abi.Op, req []byte, host abi.Host) ([]byte, error) {
	return f(ctx, op, req, host)
}

// after calls store and lets fn change the outcome.
func after(fn func(op abi.Op, resp []byte, err error) ([]byte, error)) abi.Guest {
	right := sdk.InProcess(store{})
	return guestFunc(func(ctx context.Context, op abi.Op, req []byte, host abi.Host) ([]byte, error) {
		resp, err := right.Call(ctx, op, req, host)
		return fn(op, resp, err)
	})
}

// counted is a host that counts batches of entries.
type counted struct {
	abi.Host
	batches int
}

func (c *counted) Entries(h abi.Handle, buf []byte, plan abi.Handle) (int, error) {
	c.batches++
	return c.Host.Entries(h, buf, plan)
}

// lazy answers without reading the layer.
var lazy = guestFunc(func(ctx context.Context, op abi.Op, req []byte, host abi.Host) ([]byte, error) {
	var c abi.ConvertRequest
	if err := abi.Unmarshal(req, &c); op == abi.OpConvertLayer && err == nil && c.Options["mode"] == "" {
		return abi.Marshal(&abi.ConvertResponse{}), nil
	}
	return sdk.InProcess(store{}).Call(ctx, op, req, host)
})

// wrongPlugins are plugins with one fault each, and the one case that must tell.
func wrongPlugins(release <-chan struct{}) map[string]struct {
	want  string
	guest abi.Guest
} {
	type wrong = struct {
		want  string
		guest abi.Guest
	}
	with := func(w wrongs) abi.Guest { return sdk.InProcess(store{w}) }
	var count, active atomic.Uint64
	number := func() []byte { return binary.LittleEndian.AppendUint64(make([]byte, 8), count.Add(1)) }
	return map[string]wrong{
		"describes itself anew": {"describe", with(wrongs{describe: func(d *abi.Description) { d.Version = string(rune('a' + count.Add(1)%26)) }})},
		"has no version":        {"describe", with(wrongs{describe: func(d *abi.Description) { d.Version = "" }})},
		"takes any option":      {"options", with(wrongs{options: true})},
		"answers what it does not have": {"operations", after(func(op abi.Op, resp []byte, err error) ([]byte, error) {
			if op == abi.OpMergeLayers {
				return nil, nil
			}
			return resp, err
		})},
		"chokes on a dictionary": {"dictionaries", with(wrongs{describe: func(d *abi.Description) { d.Dicts = true }, start: func(l *sdk.Layer) error {
			if len(l.Dicts) > 0 {
				return errors.New("what is this")
			}
			return nil
		}})},
		"depends on when it has a dictionary": {"dictionaries", with(wrongs{describe: func(d *abi.Description) { d.Dicts = true }, finish: func(l *sdk.Layer, r *abi.ConvertResponse) error {
			if len(l.Dicts) > 0 {
				r.State = number()
			}
			return nil
		}})},
		"has an odd artifact type": {"describe", with(wrongs{describe: func(d *abi.Description) { d.ArtifactType = "no type" }})},
		"panics":                   {"converts", with(wrongs{start: func(*sdk.Layer) error { panic("help") }})},
		"never returns":            {"converts", with(wrongs{start: func(*sdk.Layer) error { <-release; return errors.New("released") }})},
		"refuses all":              {"converts", with(wrongs{start: func(*sdk.Layer) error { return abi.ErrUnsupported }})},
		"opens a parent":           {"grants", with(wrongs{start: func(l *sdk.Layer) error { _, _ = l.Open(abi.RoleParent, 0); return nil }})},
		"opens the tar too":        {"grants", with(wrongs{finish: func(l *sdk.Layer, _ *abi.ConvertResponse) error { _, _ = l.Open(abi.RoleLayerTar, 0); return nil }})},
		"invents a handle":         {"handles", with(wrongs{start: func(l *sdk.Layer) error { _ = l.Write(77, []byte("x")); return nil }})},
		"writes after close": {"handles", with(wrongs{finish: func(l *sdk.Layer, _ *abi.ConvertResponse) error {
			return l.Write(1, []byte("x")) // the first handle of the operation was output 0
		}})},
		"leaves an output open": {"outputs", with(wrongs{finish: func(l *sdk.Layer, _ *abi.ConvertResponse) error {
			_, err := sdk.OpenSink(l, 1)
			return err
		}})},
		"does not read": {"outputs", lazy},
		"lies about a digest": {"claims", with(wrongs{finish: func(_ *sdk.Layer, r *abi.ConvertResponse) error {
			r.Parts[0].Digest = hexDigest([32]byte{})
			return nil
		}})},
		"forgets an output": {"claims", with(wrongs{finish: func(l *sdk.Layer, _ *abi.ConvertResponse) error {
			s, err := sdk.OpenSink(l, 1)
			if err == nil {
				_, err = s.Close()
			}
			return err
		}})},
		"counts conversions": {"same bytes", with(wrongs{trailer: number})},
		"minds a default that is named": {"defaults", with(wrongs{finish: func(l *sdk.Layer, r *abi.ConvertResponse) error {
			if l.Options["mode"] != "" {
				r.State = []byte("named")
			}
			return nil
		}})},
		"counts batches": {"batches", guestFunc(func(ctx context.Context, op abi.Op, req []byte, host abi.Host) ([]byte, error) {
			c := &counted{Host: host}
			return with(wrongs{trailer: func() []byte { return []byte{0, byte(c.batches)} }}).Call(ctx, op, req, c)
		})},
		"shares a variable": {"parallel", with(wrongs{trailer: func() []byte {
			defer active.Add(^uint64(0))
			active.Add(1)
			time.Sleep(50 * time.Millisecond)
			return []byte{byte(active.Load())}
		}})},
		"ignores cancellation": {"cancel", after(func(_ abi.Op, resp []byte, err error) ([]byte, error) {
			if errors.Is(err, abi.ErrCanceled) {
				<-release
			}
			return resp, err
		})},
		"does not mind a full disk": {"failing output", after(func(_ abi.Op, resp []byte, err error) ([]byte, error) {
			if errors.Is(err, abi.ErrLimit) {
				return nil, nil
			}
			return resp, err
		})},
		"does not mind a short layer": {"truncated layer", after(func(_ abi.Op, resp []byte, err error) ([]byte, error) {
			if errors.Is(err, abi.ErrTruncated) {
				return nil, nil
			}
			return resp, err
		})},
		"loses the sticky bit":    {"unpack layer", with(wrongs{unpack: func(e *abi.Entry) { e.Mode &= 0o777 }})},
		"loses attributes":        {"unpack layer", with(wrongs{unpack: func(e *abi.Entry) { e.Xattrs = nil }})},
		"lays layers upside down": {"image", with(wrongs{reversed: true})},
		"checks nothing":          {"check", with(wrongs{blind: true})},
	}
}

func TestWrongPlugins(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	covered := map[string]bool{"cores": true} // what a plugin could do to fail it, the host does not let it know
	for name, w := range wrongPlugins(release) {
		covered[w.want] = true
		t.Run(name, func(t *testing.T) {
			cfg := Config{Open: InProcess(w.guest)}
			if name == "never returns" {
				cfg.Timeout = 300 * time.Millisecond
			}
			got := failures(t, cfg)
			if err := got[w.want]; err == nil || len(got) != 1 {
				t.Errorf("fails %v, want %s", got, w.want)
			} else if testing.Verbose() {
				t.Logf("%s: %v", w.want, strings.SplitN(err.Error(), "\n", 2)[0])
			}
		})
	}
	for _, c := range Cases() {
		if !covered[c.Name] {
			t.Errorf("no wrong plugin is meant for the case %s", c.Name)
		}
	}
}

func TestSkip(t *testing.T) {
	k, err := newKit(t.Context(), Config{Open: InProcess(sdk.InProcess(store{})), Skip: Skips{"converts": "for the test"}})
	if err != nil {
		t.Fatal(err)
	}
	ran := map[string]bool{}
	for _, c := range Cases() {
		if k.try(c) == nil {
			ran[c.Name] = true
		}
	}
	if got := slices.Sorted(maps.Keys(ran)); !slices.Equal(got, []string{"describe", "grants", "handles", "operations", "options", "outputs"}) {
		t.Errorf("without conversions %v were tried", got)
	}
}

package plugintest

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/internal/session"
)

var namePattern = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,63}$`)

var mediaTypePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}$`)

func (k *kit) describe() error {
	first := k.run(k.ctx, conditions{}, abi.OpDescribe, nil, session.Config{}, nil)
	if first.err != nil {
		return first.err
	}
	if err := abi.Unmarshal(first.resp, &k.desc); err != nil {
		return err
	}
	for range 3 {
		if again := k.run(k.ctx, conditions{}, abi.OpDescribe, nil, session.Config{}, nil); again.err != nil || !bytes.Equal(first.resp, again.resp) {
			return fmt.Errorf("two answers differ (%v)", again.err)
		}
	}
	d := &k.desc
	var errs []error
	rule := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	rule(d.Major == abi.Major, "major version is %d, want %d", d.Major, abi.Major)
	rule(namePattern.MatchString(d.Name), "name %q, want a-z, 0-9 and dashes", d.Name)
	rule(d.Version != "", "no version")
	rule(d.Summary != "" && !strings.Contains(d.Summary, "\n"), "summary %q, want one line", d.Summary)
	rule(d.Input >= abi.RoleLayerStored && d.Input <= abi.RoleLayerEntries, "input is role %d, want 1, 2 or 3", d.Input)
	rule(k.has(abi.OpConvertLayer), "ops %v lack ConvertLayer", d.Ops)
	for i, op := range d.Ops {
		rule(op > abi.OpDescribe && op <= abi.OpDetach, "unknown operation %d", op)
		rule(!slices.Contains(d.Ops[:i], op), "operation %s is listed twice", op)
	}
	seen := map[string]bool{}
	for _, o := range d.Options {
		rule(namePattern.MatchString(o.Name) && !seen[o.Name], "option name %q, want one of its own of a-z, 0-9 and dashes", o.Name)
		rule(o.Help != "", "option %s has no help", o.Name)
		rule(o.Default == "" || len(o.Values) == 0 || slices.Contains(o.Values, o.Default), "default of option %s is none of its values", o.Name)
		seen[o.Name] = true
	}
	rule(d.ArtifactType == "" || mediaTypePattern.MatchString(d.ArtifactType), "artifact type %q, want a media type", d.ArtifactType)
	for _, f := range d.Needs {
		rule(slices.Contains(abi.Features(), f), "feature %q is unknown", f)
	}
	return errors.Join(errs...)
}

// converted returns the set of layers as the plugin converted them under usual conditions.
func (k *kit) converted() []trial {
	if k.base == nil {
		for i := range k.set {
			if n := len(k.base); n > 0 && errors.Is(k.base[n-1].err, errHangs) {
				k.base = append(k.base, k.base[n-1]) // it would not do better
				continue
			}
			k.base = append(k.base, *k.convert(k.ctx, conditions{}, &k.set[i], nil, &outputs{}, nil))
		}
	}
	return k.base
}

// faults are reasons for which a conversion fails that have a case of their own.
var faults = map[string]struct {
	class abi.Class
	texts []string
}{
	"grants":  {abi.ErrDenied, []string{"was not granted"}},
	"handles": {abi.ErrPlugin, []string{"is not an open", "is not a stream of entries", "opened twice"}},
	"outputs": {abi.ErrPlugin, []string{"plugin left output", "did not read the layer"}},
}

// fault returns the case that tells of err, "" if there is none of its own.
func fault(err error) string {
	for name, f := range faults {
		if abi.ClassOf(err) == f.class && slices.ContainsFunc(f.texts, func(s string) bool { return strings.Contains(err.Error(), s) }) {
			return name
		}
	}
	return ""
}

// faultless returns the test of a case in faults.
func faultless(name string) func(*kit) error {
	return func(k *kit) error {
		for i, t := range k.converted() {
			if t.err != nil && fault(t.err) == name {
				return fmt.Errorf("layer %q: %w", k.set[i].name, t.err)
			}
		}
		return nil
	}
}

func (k *kit) converts() error {
	good, elsewhere := 0, 0
	var errs []error
	for i, t := range k.converted() {
		switch {
		case t.err == nil:
			good++
		case abi.ClassOf(t.err) == abi.ErrUnsupported:
		case fault(t.err) != "":
			elsewhere++
		default:
			errs = append(errs, fmt.Errorf("layer %q: %w", k.set[i].name, t.err))
		}
	}
	switch {
	case good > 0 || len(errs) > 0:
	case elsewhere > 0:
		k.failed["converts"] = true // what rests on it cannot be tried
		return notApplicable("no layer was converted; another case tells why")
	default:
		errs = append(errs, errors.New("the plugin refuses every layer"))
	}
	return errors.Join(errs...)
}

// each calls fn for the layers that were converted.
func (k *kit) each(fn func(s *source, t *trial) error) error {
	var errs []error
	for i := range k.converted() {
		if k.base[i].err != nil {
			continue
		}
		if err := fn(&k.set[i], &k.base[i]); err != nil {
			var no notApplicable
			if errors.As(err, &no) {
				return err
			}
			errs = append(errs, fmt.Errorf("layer %q: %w", k.set[i].name, err))
		}
	}
	return errors.Join(errs...)
}

func (k *kit) claimsTrue() error {
	return k.each(func(_ *source, t *trial) error {
		_, _, err := t.layerParts()
		return err
	})
}

func (k *kit) sameBytes() error { return k.again(conditions{}) }

func (k *kit) cores() error {
	return errors.Join(k.again(conditions{workers: 1}), k.again(conditions{workers: 4}))
}

func (k *kit) batches() error { return k.again(conditions{morsels: true}) }

// again converts everything under other conditions.
func (k *kit) again(how conditions) error {
	return k.each(func(s *source, t *trial) error {
		u := k.convert(k.ctx, how, s, nil, &outputs{}, nil)
		var no notApplicable
		if errors.As(u.err, &no) {
			return no
		}
		return t.same(u)
	})
}

func (k *kit) parallel() error {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	err := k.each(func(s *source, t *trial) error {
		wg.Go(func() {
			if err := t.same(k.convert(k.ctx, conditions{}, s, nil, &outputs{}, nil)); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, fmt.Errorf("layer %q: %w", s.name, err))
			}
		})
		return nil
	})
	wg.Wait()
	return errors.Join(append(errs, err)...)
}

// options tries values that no plugin can mean: outside a list, and words where the default is a number.
func (k *kit) options() error {
	bad := maps.Clone(k.cfg.BadOptions)
	if bad == nil {
		bad = map[string]string{}
	}
	for _, o := range k.desc.Options {
		if _, ok := bad[o.Name]; !ok && (len(o.Values) > 0 || o.Default != "" && strings.Trim(o.Default[:1], "0123456789") == "") {
			bad[o.Name] = "no-such-value"
		}
	}
	if len(bad) == 0 {
		return notApplicable("no option whose wrong values the kit could know: name some in Config.BadOptions")
	}
	s := makeLayer("small", file("a", []byte("a")))
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(bad)) {
		set := maps.Clone(k.cfg.Options)
		if set == nil {
			set = map[string]string{}
		}
		set[name] = bad[name]
		if t := k.convert(k.ctx, conditions{}, &s, nil, &outputs{}, set); abi.ClassOf(t.err) != abi.ErrInvalid {
			errs = append(errs, fmt.Errorf("%s=%s: want an error of class 2, got %v", name, bad[name], t.err))
		}
	}
	return errors.Join(errs...)
}

// defaults names all defaults. Hosts take requests with and without them for one, and reuse results.
func (k *kit) defaults() error {
	set := map[string]string{}
	for _, o := range k.desc.Options {
		if o.Default != "" {
			set[o.Name] = o.Default
		}
	}
	if len(set) == 0 {
		return notApplicable("no option has a default")
	}
	maps.Copy(set, k.cfg.Options)
	return k.each(func(s *source, t *trial) error {
		return t.same(k.convert(k.ctx, conditions{}, s, nil, &outputs{}, set))
	})
}

func (k *kit) operations() error {
	var errs []error
	for op, req := range map[abi.Op]abi.Message{
		abi.OpMergeLayers: &abi.MergeRequest{}, abi.OpUnpack: &abi.UnpackRequest{}, abi.OpCheck: &abi.CheckRequest{}, 99: &abi.CheckRequest{},
	} {
		if k.has(op) {
			continue
		}
		if t := k.run(k.ctx, conditions{}, op, req, session.Config{}, &outputs{}); abi.ClassOf(t.err) != abi.ErrUnsupported {
			errs = append(errs, fmt.Errorf("operation %d (%s) is not listed: want an error of class 3, got %v", op, op, t.err))
		}
	}
	return errors.Join(errs...)
}

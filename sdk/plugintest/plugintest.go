package plugintest

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/convhost/convhost/abi"
)

// Config says what is tested.
type Config struct {
	Open    Opener
	Options map[string]string // for every operation
	// BadOptions are values that the plugin must refuse, beyond those that follow from its Description: name → value.
	BadOptions map[string]string
	// Skip names cases that are left out, each with the reason.
	Skip Skips
	// Timeout is the most that one operation may take; 0: one minute.
	Timeout time.Duration
}

// Skips are reasons by the name of a case.
type Skips map[string]string

// Case is one rule.
type Case struct {
	Name    string
	Rule    string // one sentence
	Section string // of abi.md
	after   []string
	test    func(k *kit) error
}

// Run tests one plugin: every case is a subtest of t.
func Run(t *testing.T, cfg Config) {
	t.Helper()
	for name := range cfg.Skip {
		if !isCase(name) {
			t.Errorf("plugintest: Skip names %q, which is no case", name)
		}
	}
	k, err := newKit(t.Context(), cfg)
	if err != nil {
		t.Fatalf("plugintest: %v", err)
	}
	defer func() {
		if err := k.close(); err != nil {
			t.Errorf("plugintest: close: %v", err)
		}
	}()
	for _, c := range Cases() {
		t.Run(c.Name, func(t *testing.T) {
			var no notApplicable
			switch err := k.try(c); {
			case errors.As(err, &no):
				t.Skip(err)
			case err != nil:
				t.Errorf("rule: %s (abi.md, %s)\n%v", c.Rule, c.Section, err)
			}
		})
	}
}

// notApplicable is why a case says nothing about a plugin.
type notApplicable string

// Error implements error.
func (n notApplicable) Error() string { return string(n) }

// kit is one plugin under test.
type kit struct {
	cfg    Config
	ctx    context.Context
	plugin plugin
	desc   abi.Description
	set    []source
	base   []trial // each layer of the set, converted under usual conditions
	failed map[string]bool
	stored sync.Map // []byte by digest: layers that were converted, to which others may refer
}

func newKit(ctx context.Context, cfg Config) (*kit, error) {
	if cfg.Timeout <= 0 {
		cfg.Timeout = time.Minute
	}
	if cfg.Open == nil {
		return nil, abi.Errorf(abi.ErrInvalid, "Config.Open is not set")
	}
	p, err := cfg.Open(ctx)
	if err != nil {
		return nil, err
	}
	return &kit{cfg: cfg, ctx: ctx, plugin: p, set: layerSet(), failed: map[string]bool{}}, nil
}

func (k *kit) close() error { return k.plugin.close() }

// try runs a case unless it is skipped or rests on one that failed.
func (k *kit) try(c Case) error {
	if why, ok := k.cfg.Skip[c.Name]; ok {
		k.failed[c.Name] = true
		return notApplicable("left out by the author: " + why)
	}
	for _, name := range c.after {
		if k.failed[name] {
			k.failed[c.Name] = true
			return notApplicable("rests on the case " + name + ", which did not pass")
		}
	}
	err := c.test(k)
	var no notApplicable
	if err != nil && !errors.As(err, &no) {
		k.failed[c.Name] = true
	}
	return err
}

func isCase(name string) bool {
	for _, c := range Cases() {
		if c.Name == name {
			return true
		}
	}
	return false
}

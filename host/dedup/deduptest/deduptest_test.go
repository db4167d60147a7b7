package deduptest_test

import (
	"context"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/convhost/convhost/host/dedup"
	"github.com/convhost/convhost/host/dedup/deduptest"
)

// The stores below break one promise each; the suite must notice, in the case that is named after it.

type keepsFirst struct{ dedup.Store }

func (s keepsFirst) Put(ctx context.Context, r *dedup.Record) error {
	if _, err := s.Get(ctx, r.Key); err == nil {
		return nil
	}
	return s.Store.Put(ctx, r)
}

type noKinds struct{ dedup.Store }

func (s noKinds) Get(ctx context.Context, k dedup.Key) (*dedup.Record, error) {
	r, err := s.Store.Get(ctx, k)
	if err != nil && k.Kind == dedup.KindManifest {
		k.Kind = dedup.KindLayer
		return s.Store.Get(ctx, k)
	}
	return r, err
}

type noDrop struct{ dedup.Store }

func (noDrop) Drop(context.Context, dedup.Key) error { return nil }

type oldestFirst struct{ dedup.Store }

func (s oldestFirst) Places(ctx context.Context, d digest.Digest) ([]dedup.Place, error) {
	p, err := s.Store.Places(ctx, d)
	slices.Reverse(p)
	return p, err
}

type noPlaceDrop struct{ dedup.Store }

func (noPlaceDrop) DropPlace(context.Context, dedup.Place, ...digest.Digest) error { return nil }

type prunesAll struct{ dedup.Store }

func (s prunesAll) Prune(ctx context.Context, _ time.Time) (int, error) {
	return s.Store.Prune(ctx, time.Now().Add(time.Hour))
}

type noContext struct{ dedup.Store }

func (s noContext) Get(_ context.Context, k dedup.Key) (*dedup.Record, error) {
	return s.Store.Get(context.Background(), k)
}

var wrong = map[string]struct {
	wrap func(dedup.Store) dedup.Store
	must []string // cases that have to fail
}{
	"keepsFirst":  {func(s dedup.Store) dedup.Store { return keepsFirst{s} }, []string{"put/replaces"}},
	"noKinds":     {func(s dedup.Store) dedup.Store { return noKinds{s} }, []string{"put/kinds_are_apart"}},
	"noDrop":      {func(s dedup.Store) dedup.Store { return noDrop{s} }, []string{"drop/is_idempotent", "list/all_records"}},
	"oldestFirst": {func(s dedup.Store) dedup.Store { return oldestFirst{s} }, []string{"places/newest_first,_each_once"}},
	"noPlaceDrop": {func(s dedup.Store) dedup.Store { return noPlaceDrop{s} }, []string{"places/newest_first,_each_once"}},
	"prunesAll":   {func(s dedup.Store) dedup.Store { return prunesAll{s} }, []string{"prune/by_use"}},
	"noContext":   {func(s dedup.Store) dedup.Store { return noContext{s} }, []string{"a_cancelled_context_ends_the_call"}},
}

func TestSuiteCatchesWrongStores(t *testing.T) {
	if name := os.Getenv("DEDUPTEST_WRONG"); name != "" {
		deduptest.Run(t, deduptest.Config{Open: func(*testing.T) dedup.Store { return wrong[name].wrap(dedup.NewMemory()) }})
		return
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for name, w := range wrong {
		for _, m := range w.must {
			run := "^TestSuiteCatchesWrongStores$/^" + strings.ReplaceAll(regexp.QuoteMeta(m), "/", "$/^") + "$"
			cmd := exec.Command(exe, "-test.run="+run, "-test.v")
			cmd.Env = append(os.Environ(), "DEDUPTEST_WRONG="+name)
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), "--- FAIL: TestSuiteCatchesWrongStores/"+m) {
				t.Errorf("%s does not fail %q: %v\n%s", name, m, err, out)
			}
		}
	}
}

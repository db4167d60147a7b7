package castest_test

import (
	"context"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/convhost/convhost/host/cas"
	"github.com/convhost/convhost/host/cas/castest"
)

// The stores below break one promise each; the suite must notice, in the case that is named after it.

type noSwap struct{ cas.Store }

func (s noSwap) SetImage(ctx context.Context, img cas.Image, _ digest.Digest) error {
	return s.Store.SetImage(ctx, img, cas.AnyTarget)
}

type noMerge struct{ cas.Store }

func (s noMerge) SetLabels(context.Context, digest.Digest, map[string]string) error { return nil }

type noHold struct{ cas.Store }

func (noHold) Hold(context.Context, ...digest.Digest) error { return nil }

type anySize struct{ cas.Store }

func (s anySize) Open(ctx context.Context, d ocispec.Descriptor) (cas.ReaderAt, error) {
	d.Size = -1
	return s.Store.Open(ctx, d)
}

type noGC struct{ cas.Store }

func (s noGC) GC(ctx context.Context) (n int, err error) {
	return n, s.Walk(ctx, func(cas.Info) error { n++; return nil })
}

var wrong = map[string]struct {
	wrap func(cas.Store) cas.Store
	must []string // cases that have to fail
}{
	"noSwap":  {func(s cas.Store) cas.Store { return noSwap{s} }, []string{"image/compare_and_swap"}},
	"noMerge": {func(s cas.Store) cas.Store { return noMerge{s} }, []string{"labels/merge_and_remove", "gc/keeps_what_is_reachable"}},
	"noHold":  {func(s cas.Store) cas.Store { return noHold{s} }, []string{"gc/keeps_what_is_leased"}},
	"anySize": {func(s cas.Store) cas.Store { return anySize{s} }, []string{"open/size_must_fit"}},
	"noGC":    {func(s cas.Store) cas.Store { return noGC{s} }, []string{"gc/keeps_what_is_reachable"}},
}

func TestSuiteCatchesWrongStores(t *testing.T) {
	if name := os.Getenv("CASTEST_WRONG"); name != "" {
		parent := t.TempDir()
		castest.Run(t, func(t *testing.T) cas.Store {
			s, err := cas.OpenEphemeral(t.Context(), parent)
			if err != nil {
				t.Fatal(err)
			}
			return wrong[name].wrap(s)
		})
		return
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range slices.Sorted(maps.Keys(wrong)) {
		cmd := exec.Command(exe, "-test.run=^TestSuiteCatchesWrongStores$", "-test.v")
		cmd.Env = append(os.Environ(), "CASTEST_WRONG="+name)
		out, err := cmd.CombinedOutput()
		if err == nil {
			t.Errorf("%s passes the suite", name)
		}
		for _, c := range wrong[name].must {
			if !strings.Contains(string(out), "--- FAIL: TestSuiteCatchesWrongStores/"+c+" ") {
				t.Errorf("%s: case %s does not fail", name, c)
			}
		}
	}
}

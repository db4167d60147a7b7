package host

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/convhost/convhost/host/cas/lockfile"
)

// Several that remove an attachment at once, each with the lock, as its server and convhost detach do, all succeed.
func TestRemovePlaceTwice(t *testing.T) {
	parent := t.TempDir()
	for range 200 {
		p, err := newPlace(parent, "x")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(p.state(), "state"), []byte("1"), 0o600); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
				defer cancel()
				l, err := lockfile.Lock(ctx, p.lock())
				if err == nil {
					defer l.Unlock()
					err = p.remove()
				} else if p.gone() {
					err = nil
				}
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if left, err := os.ReadDir(parent); err != nil || len(left) > 0 {
			t.Fatal(left, err)
		}
	}
}

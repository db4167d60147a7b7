package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/internal/accel"
	"github.com/convhost/convhost/internal/session"
	"github.com/convhost/convhost/plugins/overlaybd"
	"github.com/convhost/convhost/sdk"
)

// convertTars makes a chain of layers with the plugin for overlaybd alone: tars to files in dir, as upstream's tools do it. There is
// no store, and nobody wants the layers' digests.
func convertTars(dir string, tars []string) error {
	pool := accel.NewPool(runtime.GOMAXPROCS(0), 64<<20)
	defer pool.Close()
	guest := sdk.InProcess(overlaybd.New())
	req := &abi.ConvertRequest{Features: abi.Features()}
	grants := session.Config{Pool: pool, Input: abi.RoleLayerEntries}
	for i, tar := range tars {
		out, err := os.Create(layerFile(dir, i))
		if err != nil {
			return err
		}
		defer out.Close()
		req.Layer = abi.LayerInfo{Index: i, MediaType: "application/vnd.oci.image.layer.v1.tar", Size: -1}
		grants.Layer = &session.Layer{Open: func(context.Context) (io.ReadCloser, error) { return os.Open(tar) }, MediaType: req.Layer.MediaType, Size: -1}
		grants.OpenSink = func(int) (session.Sink, error) { return file{out}, nil }
		s := session.New(context.Background(), grants)
		_, err = guest.Call(context.Background(), abi.OpConvertLayer, abi.Marshal(req), s)
		if err == nil {
			err = s.Finish()
		}
		s.Abort()
		if err != nil {
			return err
		}
		st, err := out.Stat()
		if err != nil {
			return err
		}
		req.Parents = append(req.Parents, abi.PartInfo{MediaType: req.Layer.MediaType, Layer: i, Size: st.Size()})
		grants.Parents = append(grants.Parents, session.Part{At: out, Size: st.Size()})
	}
	return nil
}

func layerFile(dir string, i int) string { return filepath.Join(dir, fmt.Sprint("layer", i)) }

// file is an output that is not digested.
type file struct{ io.Writer }

func (file) Sum() (none [32]byte)       { return none }
func (file) Close(abi.StreamInfo) error { return nil }
func (file) Abort()                     {}

// pluginAlone is the subject for it: a process of this program.
func pluginAlone(work, self string, tars []string) *process {
	return &process{name: "plugin", run: func(ctx context.Context, s *sample) error {
		dir, err := os.MkdirTemp(work, "plugin")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		if err := s.exec(ctx, self, append([]string{"-convert", dir}, tars...)...); err != nil {
			return err
		}
		st, err := os.Stat(layerFile(dir, len(tars)-1))
		if err == nil {
			s.output = st.Size()
		}
		return err
	}}
}

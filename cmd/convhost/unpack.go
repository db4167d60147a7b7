package main

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host"
)

const unpackHelp = `Writes a converted image as a tar again: its whole file system, or with --layer one of its layers, with whiteouts. "-"
writes to standard output. With --layers DIR instead of OUT, every layer that holds files becomes layer-N.tar in the
new directory DIR.

OUT and DIR appear when they are complete. An existing OUT is only replaced with --force.`

type unpackFlags struct {
	sel    selection
	req    host.UnpackRequest
	layers string
	force  bool
}

func (a *app) unpackCommand() *cobra.Command {
	var f unpackFlags
	cmd := &cobra.Command{
		Use: "unpack REF OUT", Short: "turn a converted image into a tar", Long: unpackHelp,
		Example: "  convhost unpack oci:out:1 root.tar --platform linux/amd64\n  convhost unpack oci:out:1 - --layer 0 | tar t\n  convhost unpack oci:out:1 --layers tars",
		Args:    arguments(1, 2), ValidArgsFunction: a.completeReferences(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			f.req.Image, f.req.Runtime = args[0], host.Runtime(a.set.runtime)
			if f.req.Select, err = f.sel.selection(cmd, false); err != nil {
				return err
			}
			switch {
			case f.layers != "" && (len(args) > 1 || given(cmd.Flags(), "layer")):
				return usage(cmd, "--layers takes the place of OUT and --layer: give one or the other")
			case f.layers != "":
				return a.unpackLayers(cmd.Context(), f)
			case len(args) < 2:
				return usage(cmd, "OUT is missing")
			case given(cmd.Flags(), "layer") && f.req.Layer < 0:
				return usage(cmd, "--layer is %d, want 0 or more", f.req.Layer)
			}
			return a.unpack(cmd.Context(), f, args[1])
		},
	}
	cmd.Flags().StringSliceVar(&f.sel.platforms, "platform", nil, "of an index, unpack the image for `OS/ARCH[/VARIANT]`; default this machine's")
	a.imageFormat(cmd, &f.req.Format)
	cmd.Flags().IntVar(&f.req.Layer, "layer", -1, "only layer `N`, from 0; default all, flattened")
	cmd.Flags().StringVar(&f.layers, "layers", "", "write a tar of each layer into the new directory `DIR`")
	cmd.Flags().BoolVar(&f.force, "force", false, "replace OUT")
	return cmd
}

// unpacked is the answer for one tar.
type unpacked struct {
	Layer int    `json:"layer"` // -1: the whole file system
	Out   string `json:"out"`
	*host.UnpackResult
}

func (a *app) unpack(ctx context.Context, f unpackFlags, out string) error {
	if out == "-" {
		return a.unpackStream(ctx, f)
	}
	if _, err := os.Lstat(out); err == nil && !f.force {
		return withHint(abi.Errorf(abi.ErrExists, "%s is there already", out), "--force replaces it")
	}
	return a.withEngine(ctx, func(ctx context.Context, e engine) error {
		a.ask = f.hints(e)
		res, err := unpackFile(ctx, e, f.req, out)
		if err != nil {
			return err
		}
		return a.unpackResult([]unpacked{{f.req.Layer, out, res}})
	})
}

func (f *unpackFlags) hints(e engine) func(error) string {
	return hints{engine: e, sources: []string{f.req.Image}, formats: []string{f.req.Format}}.of
}

func (a *app) unpackStream(ctx context.Context, f unpackFlags) error {
	switch {
	case isTerminal(a.stdout):
		return withHint(abi.Errorf(abi.ErrInvalid, "a tar does not go to a terminal"), "send it to a file or a pipe")
	case a.set.json:
		return abi.Errorf(abi.ErrInvalid, "--json and a tar cannot both go to standard output")
	}
	return a.withEngine(ctx, func(ctx context.Context, e engine) error {
		a.ask = f.hints(e)
		f.req.Out = a.stdout
		_, err := e.Unpack(ctx, f.req)
		return err
	})
}

func (a *app) unpackResult(files []unpacked) error {
	a.con.finish()
	doc := struct {
		Files []unpacked `json:"files"`
	}{files}
	return a.result("unpacked", doc, func(t *table) {
		for _, u := range files {
			t.row(u.Out, count(u.Entries, "entry"), size(u.Bytes))
		}
	})
}

// unpackFile writes aside and gives the file its name when it is complete.
func unpackFile(ctx context.Context, e engine, req host.UnpackRequest, out string) (*host.UnpackResult, error) {
	f, err := os.CreateTemp(filepath.Dir(out), ".convhost-*.tmp")
	if err != nil {
		return nil, fileError(err, "unpack")
	}
	defer os.Remove(f.Name()) // does nothing once it is renamed
	defer f.Close()
	req.Out = f
	res, err := e.Unpack(ctx, req)
	if err != nil {
		return nil, err
	}
	if err := publish(f, out); err != nil {
		return nil, fileError(err, "unpack")
	}
	return res, nil
}

func publish(f *os.File, name string) error {
	if err := f.Chmod(0o644); err != nil && filepath.Separator == '/' {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

// unpackLayers makes a directory with a tar of each layer.
func (a *app) unpackLayers(ctx context.Context, f unpackFlags) error {
	dir := filepath.Clean(f.layers)
	if _, err := os.Lstat(dir); err == nil {
		return abi.Errorf(abi.ErrExists, "%s is there already", dir)
	}
	return a.withEngine(ctx, func(ctx context.Context, e engine) error {
		a.ask = f.hints(e)
		aside, err := os.MkdirTemp(filepath.Dir(dir), ".convhost-*.tmp")
		if err != nil {
			return fileError(err, "unpack")
		}
		defer os.RemoveAll(aside) // does nothing once it is renamed
		files, err := a.eachLayer(ctx, e, f.req, aside)
		if err != nil {
			return err
		}
		if err := os.Chmod(aside, 0o755|fs.ModeDir); err != nil {
			return fileError(err, "unpack")
		}
		if err := os.Rename(aside, dir); err != nil {
			return fileError(err, "unpack")
		}
		for i := range files {
			files[i].Out = filepath.Join(dir, files[i].Out)
		}
		return a.unpackResult(files)
	})
}

// eachLayer unpacks layer by layer. One without files of its own, above the first, is left out: plugins refuse it as an
// invalid request.
func (a *app) eachLayer(ctx context.Context, e engine, req host.UnpackRequest, dir string) ([]unpacked, error) {
	files := []unpacked{}
	for i, n := 0, 1; i < n; i++ {
		name := fmt.Sprintf("layer-%d.tar", i)
		req.Layer = i
		res, err := unpackFile(ctx, e, req, filepath.Join(dir, name))
		switch {
		case i > 0 && abi.ClassOf(err) == abi.ErrInvalid:
			a.con.warn(err.Error())
			continue
		case err != nil:
			return nil, err
		case i == 0:
			if n, err = layers(ctx, e, req.Image, res); err != nil {
				return nil, err
			}
		}
		files = append(files, unpacked{i, name, res})
	}
	return files, nil
}

// layers returns how many layers the image has that was just unpacked.
func layers(ctx context.Context, e engine, ref string, res *host.UnpackResult) (int, error) {
	info, err := e.Inspect(ctx, ref)
	if err != nil {
		return 0, err
	}
	for _, img := range info.Images {
		if img.Manifest.Digest == res.Manifest.Digest {
			return len(img.Layers), nil
		}
	}
	return 0, abi.Errorf(abi.ErrExists, "%s changed meanwhile", ref)
}

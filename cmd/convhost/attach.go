package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host"
)

const attachHelp = `Presents a converted image as a block device, and with --mount mounts the file system on it. Nothing is downloaded first:
blocks are read when they are needed, from the files of a layout or from the registry. FORMAT is the plugin; REF may also
be just the DIRECTORY of an OCI layout. It takes Linux and root.

The command returns when the image can be used, and a process of its own goes on serving it until "convhost detach"; its log is in the
state directory. With --foreground the command itself serves, until Ctrl-C or SIGTERM: then it detaches, by force if the image is in use.

With --writable the device can be written. What is written goes to a layer of its own, which is dropped at the end, or
kept with --upper DIR: attach the same image with the same DIR again, and it is there.

--write-config FILE writes what another runtime of the format needs to attach the image itself, for overlaybd its
config.v1.json; without --device and --mount nothing else happens.`

type attachFlags struct {
	sel        selection
	req        host.AttachRequest
	device     bool
	writable   bool
	upper      string
	options    []string
	config     string
	foreground bool
	serve      string // ID: this is the background process
}

func (a *app) attachCommand() *cobra.Command {
	var f attachFlags
	cmd := &cobra.Command{
		Use: "attach FORMAT REF|DIR", Short: "present a converted image as a block device or a mount", Long: attachHelp,
		Example: "  convhost attach overlaybd docker://registry.example/app:obd --mount /mnt/app\n" +
			"  convhost attach overlaybd ./out --mount /mnt/app --upper changes\n" +
			"  convhost attach overlaybd oci:out:1 --write-config config.v1.json",
		Args: arguments(2, 2), ValidArgsFunction: a.completeAttach,
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			f.req.Format, f.req.Image, f.req.Runtime = args[0], layoutOrReference(args[1]), host.Runtime(a.set.runtime)
			if f.req.Select, err = f.sel.selection(cmd, false); err == nil {
				err = f.complete(cmd)
			}
			switch {
			case err != nil:
				return err
			case f.serve != "":
				return a.serveAttachment(cmd.Context(), f)
			case f.foreground || f.onlyConfig():
				return a.attach(cmd.Context(), f)
			}
			return a.attachBehind(cmd.Context(), f)
		},
	}
	fs := cmd.Flags()
	fs.BoolVar(&f.device, "device", false, "make a block device; the default without --mount and --write-config")
	fs.StringVar(&f.req.Target, "mount", "", "mount the file system at the directory `PATH`, which is empty or does not exist")
	fs.BoolVar(&f.writable, "writable", false, "let it be written; what is written is dropped at the end")
	fs.StringVar(&f.upper, "upper", "", "let it be written, and keep what is written in the directory `DIR`")
	fs.StringVar(&f.config, "write-config", "", "write what another runtime needs to attach the image to `FILE`")
	fs.BoolVar(&f.foreground, "foreground", false, "serve in this process, until it is interrupted")
	fs.StringVar(&f.req.ID, "id", "", "name the attachment `ID`; default the format and random letters")
	fs.StringSliceVar(&f.sel.platforms, "platform", nil, "of an index, attach the image for `OS/ARCH[/VARIANT]`; default this machine's")
	fs.StringArrayVarP(&f.options, "option", "o", nil, "set the plugin's option `NAME=VALUE` (repeatable); see convhost plugin info FORMAT")
	fs.StringVar(&f.serve, "serve", "", "")
	must(fs.MarkHidden("serve"))
	must(cmd.MarkFlagDirname("mount"))
	must(cmd.MarkFlagDirname("upper"))
	must(cmd.MarkFlagFilename("write-config"))
	return cmd
}

// layoutOrReference lets a layout be named by its directory alone.
func layoutOrReference(arg string) string {
	if st, err := os.Stat(arg); err == nil && st.IsDir() && isLayout(arg) {
		return "oci:" + arg
	}
	return arg
}

func (f *attachFlags) onlyConfig() bool { return f.config != "" && !f.device && f.req.Target == "" }

// complete turns flags into the plugin's options.
func (f *attachFlags) complete(cmd *cobra.Command) error {
	f.req.Options = map[string]string{}
	for _, o := range f.options {
		name, value, ok := strings.Cut(o, "=")
		if !ok || name == "" {
			return usage(cmd, "--option %q: want NAME=VALUE", o)
		}
		f.req.Options[name] = value
	}
	if f.writable {
		f.req.Options["writable"] = "true"
	}
	if f.upper != "" {
		abs, err := filepath.Abs(f.upper)
		if err != nil {
			return fileError(err, "attach")
		}
		f.req.Options["upper"] = abs
	}
	if f.onlyConfig() {
		f.req.Options["device"] = "none"
	}
	if given(cmd.Flags(), "mount") && f.req.Target == "" {
		return usage(cmd, "--mount is empty, want a directory")
	}
	return nil
}

// hints knows that attaching takes rights that reading an image does not.
func (f *attachFlags) hints(e engine) func(error) string {
	return func(err error) string {
		if at := (*host.Error)(nil); errors.As(err, &at) && at.Op == "attach" && abi.ClassOf(err) == abi.ErrDenied && os.Geteuid() > 0 {
			return "block devices take root; -o device=socket serves the image to programs without"
		}
		return hints{engine: e, sources: []string{f.req.Image}, formats: []string{f.req.Format}}.of(err)
	}
}

// attached is the answer of attach.
type attached struct {
	host.AttachmentInfo
	Log string `json:"log,omitempty"`
}

// attach serves in this process until it is interrupted.
func (a *app) attach(ctx context.Context, f attachFlags) error {
	return a.withEngine(ctx, func(ctx context.Context, e engine) error {
		a.ask = f.hints(e)
		at, err := e.Attach(ctx, f.req)
		if err != nil {
			return err
		}
		if err := writeConfig(f.config, at.Config); err != nil {
			return errors.Join(err, end(e, at))
		}
		if err := a.attachedResult(attached{AttachmentInfo: at.AttachmentInfo}, f.config); err != nil {
			return errors.Join(err, end(e, at))
		}
		return a.serveUntil(ctx, e, at)
	})
}

// serveUntil waits until somebody detaches, or the process is to end.
func (a *app) serveUntil(ctx context.Context, e engine, at *host.Attachment) error {
	if at.ID == "" {
		return nil
	}
	select {
	case <-at.Done():
		if err := at.Err(); err != nil {
			return err
		}
	case <-ctx.Done():
	}
	return end(e, at)
}

// end detaches: who ended it elsewhere may be doing so too.
func end(e engine, at *host.Attachment) error {
	if at.ID == "" {
		return nil
	}
	err := e.Detach(context.Background(), host.DetachRequest{ID: at.ID})
	if errors.Is(err, abi.ErrExists) {
		err = e.Detach(context.Background(), host.DetachRequest{ID: at.ID, Force: true})
	}
	if errors.Is(err, abi.ErrNotFound) {
		return nil
	}
	return err
}

func writeConfig(file string, b []byte) error {
	switch {
	case file == "":
		return nil
	case b == nil:
		return abi.Errorf(abi.ErrUnsupported, "no configuration can be written: another runtime has no way to the layers where they are; a layout or a registry would do")
	}
	if err := os.WriteFile(file, b, 0o644); err != nil {
		return fileError(err, "attach")
	}
	return nil
}

func (a *app) attachedResult(at attached, config string) error {
	a.con.finish()
	if at.ID == "" {
		return a.result("configured", struct {
			Config string `json:"config"`
		}{config}, func(t *table) { t.line("%s", config) })
	}
	return a.result("attached", at, func(t *table) {
		where := at.Device
		if at.Target != "" {
			where += " at " + at.Target
		}
		t.line("%s: %s", at.ID, where)
	})
}

// completeAttach offers formats, then references.
func (a *app) completeAttach(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	switch len(args) {
	case 0:
		return a.completeFormats(cmd, args, word)
	case 1:
		out, _ := a.references(word)
		return out, cobra.ShellCompDirectiveNoSpace // and directories
	}
	return nil, cobra.ShellCompDirectiveNoFileComp
}

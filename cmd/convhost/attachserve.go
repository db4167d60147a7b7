package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host"
)

// An attachment that stays behind is served by a second process of this program, with the same arguments and --serve ID. It
// says on its standard output, as one line, what became of the attach (attachReport); its standard error is the log, in the
// attachment's directory.
type attachReport struct {
	Attached *host.AttachmentInfo `json:"attached,omitempty"`
	Config   []byte               `json:"config,omitempty"`
	Class    abi.Class            `json:"class,omitempty"`
	Error    string               `json:"error,omitempty"`
	Hint     string               `json:"hint,omitempty"`
}

// attachBehind starts the second process and waits until the image can be used.
func (a *app) attachBehind(ctx context.Context, f attachFlags) error {
	if err := a.set.prepare(a); err != nil {
		return err
	}
	a.con = newConsole(a)
	defer a.con.finish()
	id := f.req.ID
	if id == "" {
		id = nameOf(f.req.Format) + "-" + strings.ToLower(rand.Text()[:8])
	}
	dir := filepath.Join(a.set.stateDirectory(), id)
	log, made, err := openLog(dir)
	if err != nil {
		return err
	}
	defer log.Close()
	report, err := a.startServing(ctx, id, log)
	if err == nil && report.Error != "" {
		err = abi.Errorf(report.Class, "%s", report.Error)
		if report.Hint != "" {
			err = withHint(err, "%s", report.Hint)
		}
	}
	if err != nil {
		if made { // nothing but the log is left of it, unless cleaning up failed
			os.Remove(log.Name())
			os.Remove(dir)
		}
		return err
	}
	if err := writeConfig(f.config, report.Config); err != nil {
		return err
	}
	return a.attachedResult(attached{*report.Attached, log.Name()}, f.config)
}

// nameOf makes the beginning of an ID of a format, which may be a path.
func nameOf(format string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return -1
	}, strings.TrimPrefix(strings.ToLower(filepath.Base(format)), "convhost-plugin-"))
}

// openLog makes the attachment's directory with the log in it; made is false if the directory was there.
func openLog(dir string) (log *os.File, made bool, err error) {
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return nil, false, fileError(err, "state directory")
	}
	if err = os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, false, fileError(err, "state directory")
	}
	made = err == nil
	if log, err = os.OpenFile(filepath.Join(dir, "log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600); err != nil {
		return nil, false, fileError(err, "log")
	}
	return log, made, nil
}

// startServing starts the process and reads its report.
func (a *app) startServing(ctx context.Context, id string, log *os.File) (*attachReport, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, abi.Errorf(abi.ErrIO, "find this program: %w", err)
	}
	cmd := exec.Command(exe, append(append([]string{}, a.args[1:]...), "--serve", id)...)
	cmd.Args[0] = a.args[0]
	cmd.Stderr, cmd.SysProcAttr = log, ownSession()
	if a.set.credsFile == "-" {
		cmd.Stdin = a.stdin
	}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return nil, abi.Errorf(abi.ErrIO, "start the process that serves: %w", err)
	}
	stop := context.AfterFunc(ctx, func() {
		if cmd.Process.Signal(syscall.SIGTERM) != nil {
			_ = cmd.Process.Kill() // there are no signals here; what it made is found by detach
		}
	})
	defer stop()
	report := new(attachReport)
	derr := json.NewDecoder(io.LimitReader(out, 16<<20)).Decode(report)
	if derr == nil && report.Attached != nil {
		return report, cmd.Process.Release()
	}
	werr := cmd.Wait()
	switch {
	case ctx.Err() != nil:
		return nil, abi.Errorf(abi.ErrCanceled, "interrupted")
	case derr != nil || report.Error == "":
		return nil, abi.Errorf(abi.ErrInternal, "the process that serves ended without a word: %v; its log is %s", werr, log.Name())
	}
	return report, nil
}

// serveAttachment is the second process.
func (a *app) serveAttachment(ctx context.Context, f attachFlags) error {
	f.req.ID, f.req.Only = f.serve, true
	reported := false
	tell := func(r attachReport) {
		reported = true
		b, err := json.Marshal(r)
		if err == nil {
			_, _ = a.stdout.Write(append(b, '\n')) // if nobody listens, nobody wants to know
		}
		if c, ok := a.stdout.(io.Closer); ok {
			_ = c.Close()
		}
	}
	err := a.withEngine(ctx, func(ctx context.Context, e engine) error {
		a.ask = f.hints(e)
		at, err := e.Attach(ctx, f.req)
		if err != nil {
			return err
		}
		tell(attachReport{Attached: &at.AttachmentInfo, Config: at.Config})
		return a.serveUntil(ctx, e, at)
	})
	if err != nil && !reported {
		tell(attachReport{Class: abi.ClassOf(err), Error: clean(err.Error()), Hint: a.hint(err)})
	}
	return err
}

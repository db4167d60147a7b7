package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host"
)

const detachHelp = `Ends an attachment that "convhost attach" made, named by its ID, its device or the directory where it is mounted, and
removes all that it made: mount, device, files, process. That works too when the process that served it was killed, and after an
interrupted detach.

An attachment that is in use stays as it is (exit code 9), unless --force is given: then whoever uses it gets errors. --force also
ends a process that hangs; without it, detach waits for what is still to be written.`

// detached is the answer of detach.
type detached struct {
	Detached []string `json:"detached"`
}

func (a *app) detachCommand() *cobra.Command {
	var all, force bool
	cmd := &cobra.Command{
		Use: "detach ID|PATH|DEVICE", Short: "end an attachment", Long: detachHelp,
		Example: "  convhost detach /mnt/app\n  convhost detach --all",
		Args: func(cmd *cobra.Command, args []string) error {
			if all && len(args) > 0 {
				return usage(cmd, "--all takes the place of ID")
			}
			return arguments(map[bool]int{false: 1}[all], 1)(cmd, args)
		},
		ValidArgsFunction: a.completeAttachments,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.detach(cmd.Context(), args, all, force)
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "end all attachments")
	cmd.Flags().BoolVar(&force, "force", false, "also what is in use")
	return cmd
}

func (a *app) detach(ctx context.Context, names []string, all, force bool) error {
	return a.withEngine(ctx, func(ctx context.Context, e engine) error {
		if all {
			list, err := e.Attachments(ctx)
			if err != nil {
				return err
			}
			for _, at := range list {
				names = append(names, at.ID)
			}
		}
		done := detached{[]string{}}
		var failed error
		for _, name := range names {
			err := e.Detach(ctx, host.DetachRequest{ID: name, Force: force})
			switch {
			case err == nil:
				done.Detached = append(done.Detached, name)
			case errors.Is(err, abi.ErrExists):
				failed = withHint(err, "stop what uses it, or take it away with --force")
			default:
				failed = err
			}
			if err != nil && all {
				a.con.warn(err.Error())
			}
		}
		if failed != nil && !all {
			return failed
		}
		err := a.result("detached", done, func(t *table) {
			for _, name := range done.Detached {
				t.line("%s", name)
			}
		})
		return errors.Join(failed, err)
	})
}

func (a *app) attachmentsCommand() *cobra.Command {
	return &cobra.Command{
		Use: "attachments", Short: "list what is attached",
		Long: "Lists what is attached, by any process that uses the same state directory. One whose process is gone cannot be read any more;\n\"convhost detach\" removes what is left of it.",
		Args: arguments(0, 0), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.attachments(cmd.Context()) },
	}
}

func (a *app) attachments(ctx context.Context) error {
	return a.withEngine(ctx, func(ctx context.Context, e engine) error {
		list, err := e.Attachments(ctx)
		if err != nil {
			return err
		}
		doc := struct {
			Attachments []host.AttachmentInfo `json:"attachments"`
		}{list}
		return a.result("attachments", doc, func(t *table) {
			t.row("ID", "DEVICE", "MOUNTED", "PROCESS", "SINCE", "IMAGE")
			for _, at := range list {
				process := fmt.Sprint(at.Process)
				if !at.Serving {
					process = "gone"
				}
				t.row(at.ID, none(at.Device), none(at.Target), process, at.Since.Format(time.RFC3339), at.Image)
			}
		})
	})
}

func (a *app) completeAttachments(cmd *cobra.Command, args []string, _ string) (out []string, _ cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	a.asking(cmd, func(ctx context.Context, e engine) {
		list, err := e.Attachments(ctx)
		if err != nil {
			return
		}
		for _, at := range list {
			out = append(out, at.ID+"\t"+clean(at.Image))
			if at.Target != "" {
				out = append(out, at.Target)
			}
		}
	})
	return out, cobra.ShellCompDirectiveNoFileComp
}

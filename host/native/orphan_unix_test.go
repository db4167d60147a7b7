//go:build unix

package native_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/convhost/convhost/abi"
	"github.com/convhost/convhost/host/native"
	"github.com/convhost/convhost/internal/dataplane"
	"github.com/convhost/convhost/internal/session"
)

func dup(fd int) int {
	n, err := syscall.Dup(fd)
	if err != nil {
		panic(err)
	}
	return n
}

// beHost starts a plugin, prints its process ID and waits to be killed.
func beHost() {
	exe, _ := os.Executable()
	p, err := native.Start(context.Background(), native.Config{
		Path: exe, TempDir: os.Getenv("TEST_TEMP"), NoDescriptors: os.Getenv("TEST_HOST") == "frames"})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	resp, err := do(context.Background(), p, "ok", session.Config{})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(string(resp.State))
	_, _ = do(context.Background(), p, "hang", session.Config{})
	select {}
}

// A host that is killed leaves no process and no file.
func TestNoOrphans(t *testing.T) {
	for _, pl := range planes {
		t.Run(pl.name, func(t *testing.T) {
			exe, _ := os.Executable()
			temp := t.TempDir()
			host := exec.Command(exe)
			host.Env = append(os.Environ(), "TEST_HOST="+pl.name, "TEST_TEMP="+temp)
			out, err := host.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := host.Start(); err != nil {
				t.Fatal(err)
			}
			line, _ := bufio.NewReader(out).ReadString('\n')
			pid, err := strconv.Atoi(strings.TrimSpace(line))
			time.Sleep(50 * time.Millisecond)
			host.Process.Kill()
			host.Wait()
			if err != nil {
				t.Fatalf("host printed %q", line)
			}
			gone(t, pid)
			if left, _ := os.ReadDir(temp); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// gone waits until a process that is not our child has ended.
func gone(t *testing.T, pid int) {
	t.Helper()
	for range 200 {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if syscall.Kill(pid, 0) != nil || err == nil && strings.Contains(string(stat), ") Z ") {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	syscall.Kill(pid, syscall.SIGKILL)
	t.Errorf("plugin %d outlived its host", pid)
}

// Where the kernel does not end a plugin with its host, the closed data socket does.
func TestPluginLeavesWithItsSocket(t *testing.T) {
	conn, theirs, err := dataplane.SocketPair()
	if err != nil {
		t.Fatal(err)
	}
	exe, _ := os.Executable()
	dir := t.TempDir() + "/socket"
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = []string{"CONVHOST_PLUGIN=convhost.v1", "PLUGIN_PROTOCOL_VERSIONS=1", "PLUGIN_UNIX_SOCKET_DIR=" + dir, dataplane.EnvDataFD + "=3"}
	cmd.ExtraFiles = []*os.File{theirs}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	line, _ := bufio.NewReader(out).ReadString('\n')
	if want := fmt.Sprintf("1|%d|unix|%s/", abi.Major, dir); !strings.HasPrefix(line, want) {
		t.Errorf("handshake %q, want %q", line, want)
	}
	conn.Close()
	timer := time.AfterFunc(3*time.Second, func() { cmd.Process.Kill() })
	err = cmd.Wait()
	if !timer.Stop() {
		t.Errorf("the plugin stayed: %v", err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the socket directory stayed: %v", err)
	}
}

// By hand, a plugin says what it is.
func TestStartedByHand(t *testing.T) {
	exe, _ := os.Executable()
	cmd := exec.Command(exe)
	cmd.Env = []string{"CONVHOST_PLUGIN=no"}
	b, err := cmd.CombinedOutput()
	if cmd.ProcessState.ExitCode() != 1 || !strings.Contains(string(b), "This is test, a format plugin for convhost") {
		t.Errorf("%v: %s", err, b)
	}
}

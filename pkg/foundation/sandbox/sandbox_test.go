//go:build linux && (amd64 || arm64)

package sandbox_test

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"vitrine.io/pkg/foundation/sandbox"
)

// TestMain makes this test binary run as a process in a sandbox if SANDBOX_CHILD is set.
func TestMain(m *testing.M) {
	if os.Getenv("SANDBOX_CHILD") != "" {
		os.Exit(sandboxedChild())
	}
	goleak.VerifyTestMain(m)
}

// sandboxedChild tries refused calls on a thread that was started before the sandbox, prints the results, and waits until
// its stdin ends.
func sandboxedChild() int {
	tries := make(chan func() string)
	results := make(chan string)
	go func() {
		runtime.LockOSThread()
		for try := range tries {
			results <- try()
		}
	}()
	onThread := func(try func() string) string {
		tries <- try
		return <-results
	}
	onThread(func() string { return "" }) // waits until the thread exists
	if err := sandbox.Enter(); err != nil {
		fmt.Println(err)
		return 1
	}
	secondErr := sandbox.Enter()
	for _, try := range []func() error{
		func() error { _, err := os.ReadFile("/proc/self/status"); return err },
		func() error { return os.WriteFile("/tmp/never", nil, 0o600) },
		func() error { _, err := net.Dial("tcp", "127.0.0.1:9"); return err },
		func() error { return exec.Command("/bin/true").Run() },
		func() error { return unix.Kill(os.Getppid(), 0) },
		func() error { return unix.Unlink("/tmp/never") },
		func() error { _, err := unix.FcntlInt(0, unix.F_SETOWN, os.Getppid()); return err },
		func() error { return secondErr },
	} {
		fmt.Println(onThread(func() string { return fmt.Sprint(errors.Is(try(), unix.EPERM)) }))
	}
	fmt.Println(onThread(func() string { return "still here" }))
	_, _ = io.Copy(io.Discard, os.Stdin)
	return 0
}

func TestEnter(t *testing.T) {
	t.Parallel()
	t.Run("covers_every_thread", testEnterCoversEveryThread)
	t.Run("single_thread_and_second_call", testEnterSingleThreadAndSecondCall)
}

func testEnterCoversEveryThread(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = []string{"SANDBOX_CHILD=1"}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var got []string
	for lines := bufio.NewScanner(stdout); len(got) == 0 || got[len(got)-1] != "still here"; {
		if !lines.Scan() {
			break
		}
		got = append(got, lines.Text())
	}
	want := append(slices.Repeat([]string{"true"}, 8), "still here")
	if !slices.Equal(got, want) {
		t.Errorf("the process printed %q, want %q", got, want)
	}
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", cmd.Process.Pid))
	if err != nil || len(threads) < 2 {
		t.Errorf("%d threads (%v), want several", len(threads), err)
	}
	for _, thread := range threads {
		status, err := os.ReadFile(thread)
		if err != nil || !strings.Contains(string(status), "\nSeccomp:\t2\n") ||
			!strings.Contains(string(status), "\nNoNewPrivs:\t1\n") {
			t.Errorf("%s: %v %s, want a filter and no new privileges", thread, err, status)
		}
	}
	if err := errors.Join(stdin.Close(), cmd.Wait()); err != nil {
		t.Errorf("it ends with %v", err)
	}
}

func testEnterSingleThreadAndSecondCall(t *testing.T) {
	t.Parallel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with this goroutine
		if err := sandbox.EnterThread(); err != nil {
			t.Error(err)
			return
		}
		if err := sandbox.Probe(); err != nil {
			t.Errorf("in the sandbox: %v", err)
		}
		if err := sandbox.Enter(); !errors.Is(err, unix.EPERM) {
			t.Errorf("second call: %v, want EPERM", err)
		}
		others := make(chan error)
		go func() {
			runtime.LockOSThread()
			others <- sandbox.Enter()
		}()
		if err := <-others; err == nil || !strings.Contains(err.Error(), "has another one") {
			t.Errorf("all threads, while one has another filter: %v, want an error", err)
		}
	}()
	<-done
	err := sandbox.Probe()
	if err == nil {
		t.Fatal("all calls are refused outside of the sandbox")
	}
	for _, want := range []string{"open a file", "make a socket", "run a program", "make a process", "signal a", "trace a",
		"have a pipe"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("outside: %v, want %q in it", err, want)
		}
	}
}

// runFilter runs the filter on one call. The VM of x/net/bpf reads big-endian packets, the kernel reads native words.
func runFilter(t *testing.T, vm *bpf.VM, arch, call uint32, args ...uint32) uint32 {
	t.Helper()
	data := make([]byte, 64)
	binary.BigEndian.PutUint32(data, call)
	binary.BigEndian.PutUint32(data[4:], arch)
	for i, arg := range args {
		binary.BigEndian.PutUint32(data[16+8*i:], arg)
	}
	got, err := vm.Run(data)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(got)
}

func TestFilter(t *testing.T) {
	t.Parallel()
	t.Run("calls", testFilterCalls)
	t.Run("other_architecture", testFilterOtherArchitecture)
	t.Run("list_of_calls", testFilterListOfCalls)
}

func testFilterCalls(t *testing.T) {
	t.Parallel()
	const self = 4711
	vm, err := bpf.NewVM(sandbox.Filter(self))
	if err != nil {
		t.Fatal(err)
	}
	const thread = unix.CLONE_VM | unix.CLONE_FS | unix.CLONE_FILES | unix.CLONE_SIGHAND | unix.CLONE_THREAD
	for name, tc := range map[string]struct {
		want uint32
		call uint32
		args []uint32
	}{
		"read":                             {sandbox.Allow, unix.SYS_READ, nil},
		"wait for a thread":                {sandbox.Allow, unix.SYS_FUTEX, nil},
		"make a thread":                    {sandbox.Allow, unix.SYS_CLONE, []uint32{thread}},
		"fork":                             {sandbox.Refuse, unix.SYS_CLONE, []uint32{uint32(unix.SIGCHLD)}},
		"vfork":                            {sandbox.Refuse, unix.SYS_CLONE, []uint32{unix.CLONE_VM | unix.CLONE_VFORK}},
		"fork and share all":               {sandbox.Refuse, unix.SYS_CLONE, []uint32{thread &^ unix.CLONE_THREAD}},
		"make a thread or a process":       {sandbox.Unknown, unix.SYS_CLONE3, nil},
		"signal an own thread":             {sandbox.Allow, unix.SYS_TGKILL, []uint32{self, 1, 23}},
		"signal another process's thread":  {sandbox.Refuse, unix.SYS_TGKILL, []uint32{self + 1, 1, 23}},
		"make a thread in a new namespace": {sandbox.Refuse, unix.SYS_CLONE, []uint32{thread | unix.CLONE_NEWNS}},
		"get a descriptor's flags":         {sandbox.Allow, unix.SYS_FCNTL, []uint32{3, unix.F_GETFL}},
		"duplicate a descriptor":           {sandbox.Allow, unix.SYS_FCNTL, []uint32{3, unix.F_DUPFD_CLOEXEC}},
		"set the owner of a pipe":          {sandbox.Refuse, unix.SYS_FCNTL, []uint32{0, unix.F_SETOWN}},
		"set the signal of a pipe":         {sandbox.Refuse, unix.SYS_FCNTL, []uint32{0, unix.F_SETSIG}},
		"have a pipe send signals":         {sandbox.Refuse, unix.SYS_FCNTL, []uint32{0, unix.F_SETFL, unix.O_ASYNC}},
		"name a thread":                    {sandbox.Allow, unix.SYS_PRCTL, []uint32{unix.PR_SET_NAME}},
		"become traceable":                 {sandbox.Refuse, unix.SYS_PRCTL, []uint32{unix.PR_SET_PTRACER}},
		"outlive the parent":               {sandbox.Refuse, unix.SYS_PRCTL, []uint32{unix.PR_SET_PDEATHSIG}},
		"last number before Linux 5.1":     {sandbox.Refuse, sandbox.FirstShared - 1, nil},
		"io_uring":                         {sandbox.Unknown, unix.SYS_IO_URING_SETUP, nil},
		"openat2":                          {sandbox.Unknown, unix.SYS_OPENAT2, nil},
		"unknown number":                   {sandbox.Unknown, 9999, nil},
		"read by its x32 number":           {sandbox.Unknown, 0x40000000 | unix.SYS_READ, nil},
		"number -1":                        {sandbox.Unknown, 0xffffffff, nil},
	} {
		if got := runFilter(t, vm, sandbox.Arch, tc.call, tc.args...); got != tc.want {
			t.Errorf("%s: %#x, want %#x", name, got, tc.want)
		}
	}
	for _, call := range []uint32{
		unix.SYS_OPENAT, unix.SYS_SOCKET, unix.SYS_SOCKETPAIR, unix.SYS_CONNECT, unix.SYS_BIND, unix.SYS_LISTEN,
		unix.SYS_ACCEPT, unix.SYS_ACCEPT4, unix.SYS_SENDMSG, unix.SYS_SENDTO, unix.SYS_EXECVE, unix.SYS_EXECVEAT, unix.SYS_PTRACE,
		unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_KILL, unix.SYS_TKILL, unix.SYS_RT_SIGQUEUEINFO,
		unix.SYS_RT_TGSIGQUEUEINFO, unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_CHROOT, unix.SYS_PIVOT_ROOT, unix.SYS_BPF,
		unix.SYS_KEYCTL, unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY, unix.SYS_USERFAULTFD, unix.SYS_PERF_EVENT_OPEN,
		unix.SYS_UNSHARE, unix.SYS_SETNS, unix.SYS_KEXEC_LOAD, unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE,
		unix.SYS_DELETE_MODULE, unix.SYS_SECCOMP, unix.SYS_PRLIMIT64, unix.SYS_SETRLIMIT, unix.SYS_UNLINKAT, unix.SYS_RENAMEAT,
		unix.SYS_LINKAT, unix.SYS_SYMLINKAT, unix.SYS_MKDIRAT, unix.SYS_FTRUNCATE, unix.SYS_IOCTL, unix.SYS_SHMGET,
		unix.SYS_MEMFD_CREATE, unix.SYS_NAME_TO_HANDLE_AT, unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_SETUID, unix.SYS_CAPSET,
		unix.SYS_PERSONALITY, unix.SYS_SETPGID, unix.SYS_SETSID, unix.SYS_DUP3, unix.SYS_PIPE2,
	} {
		if got := runFilter(t, vm, sandbox.Arch, call); got != sandbox.Refuse {
			t.Errorf("call %d: %#x, want it refused", call, got)
		}
	}
}

func testFilterOtherArchitecture(t *testing.T) {
	t.Parallel()
	vm, err := bpf.NewVM(sandbox.Filter(1))
	if err != nil {
		t.Fatal(err)
	}
	for _, arch := range []uint32{unix.AUDIT_ARCH_I386, unix.AUDIT_ARCH_ARM, unix.AUDIT_ARCH_RISCV64, 0} {
		if got := runFilter(t, vm, arch, unix.SYS_READ); got != sandbox.Kill {
			t.Errorf("architecture %#x: %#x, want the process killed", arch, got)
		}
	}
}

func testFilterListOfCalls(t *testing.T) {
	t.Parallel()
	sorted := slices.Sorted(slices.Values(sandbox.Calls))
	if n := len(slices.Compact(slices.Clone(sorted))); n != len(sorted) {
		t.Errorf("%d calls are listed, %d of them different", len(sorted), n)
	}
	if last := sorted[len(sorted)-1]; last >= sandbox.FirstShared {
		t.Errorf("call %d is listed, but it is in the range that fails with ENOSYS", last)
	}
}

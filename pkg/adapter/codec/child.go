package codec

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"go.uber.org/zap"

	"vitrine.io/pkg/foundation/codecproto"
	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
	process "vitrine.io/pkg/foundation/process"
)

// child is one codec process. It is owned by the holder of its slot; only kill may be called by other goroutines.
type child struct {
	pid    int
	proc   *os.Process
	in     io.WriteCloser // its stdin
	out    io.ReadCloser  // its stdout
	read   *bufio.Reader
	exited chan struct{} // closed when the process is reaped; state is set before
	state  *os.ProcessState
	seq    int // images sent to it

	safeMode bool // the process does not use SIMD instructions
}

// spawn starts a codec and waits for its hello. p.goroutines counts the goroutines that it starts; they end with the
// child.
func (p *Pool) spawn(ctx context.Context, safeMode bool) (*child, error) {
	c, err := p.start(safeMode)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", p.path, err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, p.cfg.StartTimeout, errDeadline)
	defer cancel()
	stop := context.AfterFunc(ctx, c.kill)
	err = codecproto.ReadHello(c.read)
	if inTime := stop(); err == nil && inTime {
		return c, nil
	}
	c.destroy()
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return nil, fmt.Errorf("start %s: no hello: %w (%s)", p.path, err, c.state)
}

// start runs the program, with three pipes as its standard streams. exec.Cmd.Wait is not called, because it closes the
// parent's ends of the pipes before their last bytes are read.
func (p *Pool) start(safeMode bool) (*child, error) {
	cmd := exec.Command(p.path, p.args...)
	cmd.Env, cmd.Dir = p.env, "/"
	if safeMode {
		cmd.Env = append(slices.Clip(p.env), withoutVectors)
	}
	cmd.SysProcAttr = process.Attr(nil, syscall.SIGKILL)
	in, inErr := cmd.StdinPipe()
	out, outErr := cmd.StdoutPipe()
	stderr, stderrErr := cmd.StderrPipe()
	cmd.Err = errors.Join(cmd.Err, inErr, outErr, stderrErr) // cmd.Start returns it, and closes the pipes
	c := &child{in: in, out: out, read: bufio.NewReader(out), exited: make(chan struct{}), safeMode: safeMode}
	if err := p.launch(cmd, c); err != nil {
		return nil, err
	}
	p.goroutines.Go(func() {
		c.state, _ = c.proc.Wait()
		p.remove(c)
		close(c.exited)
	})
	p.goroutines.Go(func() { p.logStderr(stderr, c.pid) })
	p.log.Debug("codec started", zap.Int("pid", c.pid))
	return c, nil
}

// kill sends SIGKILL. It may be called at any time and repeatedly: os.Process does not signal a reaped process.
func (c *child) kill() { _ = c.proc.Kill() }

// destroy kills the child, waits until it is reaped and closes its pipes.
func (c *child) destroy() {
	c.kill()
	<-c.exited
	_ = c.in.Close()
	_ = c.out.Close()
}

// retire closes the child's stdin, on which it exits, and kills it after grace.
func (c *child) retire(grace time.Duration) {
	_ = c.in.Close()
	select {
	case <-c.exited:
	case <-time.After(grace):
	}
	c.destroy()
}

// alive reports whether the child has not been reaped yet.
func (c *child) alive() bool {
	select {
	case <-c.exited:
		return false
	default:
		return true
	}
}

// render sends an image to the child and waits for its answer. If reusable is false, the child must not be used for another
// image: it was killed, died, or broke the protocol.
func (c *child) render(
	ctx context.Context, source []byte, spec pipeline.Spec,
) (rendered media.Rendered, reusable bool, err error) {
	before := c.cpu()
	reusable, err = c.exchange(ctx, spec, func(seq int) (err error) {
		if err = codecproto.WriteRequest(c.in, seq, source, spec); err == nil {
			rendered, err = codecproto.ReadAnswer(c.read, seq, spec)
		}
		return err
	})
	if reusable {
		rendered.CPU = c.cpu() - before
	}
	return rendered, reusable, err
}

// compare is render for a comparison.
func (c *child) compare(ctx context.Context, source []byte, spec pipeline.Spec, files []media.Comparison,
) (scores []media.Score, reusable bool, err error) {
	reusable, err = c.exchange(ctx, spec, func(seq int) (err error) {
		if err = codecproto.WriteComparison(c.in, seq, source, spec, files); err == nil {
			scores, err = codecproto.ReadScores(c.read, seq, len(files))
		}
		return err
	})
	return scores, reusable, err
}

// exchange calls do, which sends a request with a number and reads its answer, and kills the child at the deadline. If the
// child dies during the write, its exit status is the cause, not the error of the write.
func (c *child) exchange(ctx context.Context, spec pipeline.Spec, do func(seq int) error) (reusable bool, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, spec.Limits.Deadline.D(), errDeadline)
	defer cancel()
	stop := context.AfterFunc(ctx, c.kill) // this ends both the write and the read
	c.seq++
	err = do(c.seq)
	inTime := stop()
	if err == nil || media.FailureOf(err) != nil {
		return inTime, err
	}
	c.destroy()
	switch {
	case inTime:
		return false, media.Fail(media.CodecCrashed, fmt.Sprintf("the codec died on this image (%s)", c.state),
			fmt.Errorf("codec %d: %w", c.pid, err))
	case errors.Is(context.Cause(ctx), errDeadline):
		return false, media.Fail(media.CodecTimeout,
			fmt.Sprintf("the codec took longer than %s and was killed", spec.Limits.Deadline), fmt.Errorf("codec %d: %w", c.pid, err))
	default:
		return false, ctx.Err()
	}
}

// tick is the unit of the times in /proc/PID/stat.
const tick = 10 * time.Millisecond

// cpu returns the CPU time of all threads of the child, 0 if it cannot be read.
func (c *child) cpu() time.Duration {
	stat, _ := os.ReadFile("/proc/" + strconv.Itoa(c.pid) + "/stat")
	_, fields, _ := strings.Cut(string(stat), ") ") // the name before it may have spaces
	all := strings.Fields(fields)
	if len(all) < 13 {
		return 0
	}
	user, _ := strconv.ParseInt(all[11], 10, 64) // 0 if it is no number
	system, _ := strconv.ParseInt(all[12], 10, 64)
	return time.Duration(user+system) * tick
}

// rss returns the child's resident memory in bytes, 0 if it cannot be read.
func (c *child) rss() int64 {
	statm, _ := os.ReadFile("/proc/" + strconv.Itoa(c.pid) + "/statm")
	var size, resident int64 // in pages; 0 if the file has no numbers
	_, _ = fmt.Sscan(string(statm), &size, &resident)
	return resident * int64(os.Getpagesize())
}

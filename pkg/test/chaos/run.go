package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Result is the result of one run, a line of the results file.
type Result struct {
	Seed     uint64    `json:"seed"`
	Version  string    `json:"version"`  // of the programs
	Schedule string    `json:"schedule"` // its ID
	OK       bool      `json:"ok"`
	Faults   int       `json:"faults"`
	Lost     int       `json:"lost_commits"`
	Accepted int       `json:"accepted"` // products
	Deleted  int       `json:"deleted"`
	Ready    int       `json:"ready"` // images
	Failed   int       `json:"failed"`
	Requests int       `json:"requests"`
	Events   int       `json:"events"`
	Flood    int       `json:"flood_images,omitempty"` // accepted of the user that floods
	Abuse    int       `json:"abused_lists,omitempty"` // answered
	Settled  float64   `json:"settled_after"`          // seconds since the last fault
	Seconds  float64   `json:"seconds"`                // of the whole run
	Started  time.Time `json:"started"`
	Findings []Finding `json:"findings,omitempty"`
	Logs     string    `json:"logs,omitempty"` // directory, kept if the run failed
}

// String returns the result as one line.
func (r Result) String() string {
	verdict := "ok"
	if !r.OK {
		verdict = "FAILED"
	}
	return fmt.Sprintf("seed %-4d %-6s %2d faults  %2d COMMITs lost  %4d requests  %3d products (%d deleted)  "+
		"%3d images ready, %3d failed  %4d events  settled after %4.1fs  %5.1fs",
		r.Seed, verdict, r.Faults, r.Lost, r.Requests, r.Accepted, r.Deleted, r.Ready, r.Failed, r.Events, r.Settled, r.Seconds)
}

// Harness runs seeds on the same backends.
type Harness struct {
	Backends *Backends
	Bin      string // directory of the programs
	Version  string // of the programs
	Logs     string // directory for the logs of failed runs
	Environ  []string
	Length   time.Duration // how long clients are active
}

// Run runs one seed. Violations are findings of the result; an error means that the harness itself failed. The directory of
// logs is removed if the run passes.
func (h *Harness) Run(ctx context.Context, seed uint64) (Result, error) {
	started := time.Now()
	schedule := Plan(seed, h.Length)
	r := Result{Seed: seed, Version: h.Version, Schedule: schedule.ID(), Faults: len(schedule.Faults), Started: started.UTC()}
	name := fmt.Sprintf("chaos_%d_%d", seed, started.Unix())
	dir := filepath.Join(h.Logs, name)
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return r, fmt.Errorf("create directory for logs: %w", err)
	}
	journal, err := os.Create(filepath.Join(dir, "faults.log"))
	if err != nil {
		return r, fmt.Errorf("create journal: %w", err)
	}
	defer journal.Close()
	if err := schedule.Print(journal); err != nil {
		return r, fmt.Errorf("write journal: %w", err)
	}
	system, err := NewSystem(ctx, h.Backends, schedule, name, h.Bin, dir, h.Environ)
	if err != nil {
		return r, fmt.Errorf("set up: %w", err)
	}
	run := &run{harness: h, system: system, schedule: schedule, dir: dir, journal: journal, result: &r}
	err = run.all(ctx)
	err = errors.Join(err, system.Remove(context.WithoutCancel(ctx)))
	r.Seconds = time.Since(started).Seconds()
	r.OK = err == nil && len(r.Findings) == 0
	if r.OK || ctx.Err() != nil { // an interrupted run has no result
		return r, errors.Join(err, os.RemoveAll(dir))
	}
	r.Logs = dir
	return r, err
}

// run is the state of one run.
type run struct {
	harness  *Harness
	system   *System
	schedule Schedule
	dir      string
	journal  io.Writer
	result   *Result
	outages  []Outage
	backfill chan error // the result of System.backfill
}

func (r *run) find(findings ...Finding) { r.result.Findings = append(r.result.Findings, findings...) }

// all runs all phases: the faults, the recovery, the wait for an idle system, and the check of the final state.
func (r *run) all(ctx context.Context) error {
	log, err := os.Create(filepath.Join(r.dir, "clients.jsonl"))
	if err != nil {
		return fmt.Errorf("create history: %w", err)
	}
	defer log.Close()
	history := NewHistory(log)
	if err := r.system.Start(ctx); err != nil {
		return fmt.Errorf("start programs: %w", err)
	}
	ctx, stop := context.WithCancel(ctx)
	var approving sync.WaitGroup
	r.backfill = make(chan error, 1)
	approving.Go(func() { r.backfill <- r.system.backfill(ctx, r.schedule.Length/2) })
	defer approving.Wait()
	defer stop()
	clients, err := r.chaos(ctx, history)
	if err != nil {
		return err
	}
	recovered := time.Now()
	findings, err := r.system.heal(ctx)
	r.find(findings...)
	if err != nil {
		r.find(Finding{"the system recovers after the faults", err.Error()})
		return nil
	}
	for _, c := range clients {
		c.resolve(ctx)
	}
	select {
	case err = <-r.backfill:
	case <-time.After(approvalTimeout):
		err = errors.New("no backfill is approved")
	}
	if err != nil {
		r.find(Finding{"a backfill can be approved", err.Error()})
	}
	note := func(line string) { fmt.Fprintf(r.journal, "%6.2fs  %s\n", time.Since(recovered).Seconds(), line) }
	if err := r.system.awaitSettled(ctx, note); err != nil {
		r.find(Finding{"the system becomes idle", err.Error()})
	}
	r.result.Settled = time.Since(recovered).Seconds()
	sleep(ctx, time.Until(recovered.Add(cacheTTL*11/10+time.Second))) // the cache spreads its TTL by 10%
	snap, err := r.system.collect(ctx, history.expectations)
	if err != nil {
		return fmt.Errorf("collect: %w", err)
	}
	snap.Outages = r.outages
	if err := r.system.runDeletions(ctx); err != nil {
		r.find(Finding{"scheduled deletions complete", err.Error()})
	}
	if snap.AfterDeletions, err = r.system.objects(ctx, false); err != nil {
		return fmt.Errorf("collect: %w", err)
	}
	if err := r.system.Stop(); err != nil {
		r.find(Finding{"programs stop cleanly on SIGTERM", err.Error()})
	}
	r.find(history.findings...)
	r.find(Check(snap)...)
	r.find(r.readLogs()...)
	r.count(snap, history)
	if len(r.result.Findings) > 0 {
		return r.keep(snap)
	}
	return nil
}

// chaos runs the clients and the fault injector, and returns when both have ended.
func (r *run) chaos(ctx context.Context, history *History) ([]*apiUser, error) {
	all := make([]*apiUser, clients)
	for i := range all {
		all[i] = newAPIUser(i, r.schedule.Seed, r.system.apis, r.harness.Backends.sources(i), history)
		if err := all[i].register(ctx); err != nil {
			return nil, err
		}
	}
	b := &faultInjector{system: r.system, seed: r.schedule.Seed, history: history, start: time.Now(), log: r.journal}
	work, stop := context.WithTimeout(ctx, r.schedule.Length)
	defer stop()
	before := r.harness.Backends.commitsLost()
	var both sync.WaitGroup
	for _, c := range all {
		both.Go(func() {
			c.work(work)
			c.client.Close()
		})
	}
	both.Go(func() { b.run(ctx, r.schedule) })
	both.Wait()
	r.result.Lost = r.harness.Backends.commitsLost() - before
	r.find(b.findings...)
	r.outages = b.outages
	return all, ctx.Err()
}

// readLogs looks for panics and data races in the programs' logs.
func (r *run) readLogs() []Finding {
	var findings []Finding
	for name := range r.system.programs {
		f, err := os.Open(filepath.Join(r.dir, name+".log"))
		if err != nil {
			findings = append(findings, Finding{"program logs can be read", err.Error()})
			continue
		}
		lines := bufio.NewScanner(f)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			line := lines.Bytes()
			for _, bad := range []string{"panic:", `"panic"`, "DATA RACE", "fatal error:"} {
				if bytes.Contains(line, []byte(bad)) {
					findings = append(findings, Finding{"no program panics", fmt.Sprintf("%s: %.300s", name, line)})
				}
			}
		}
		_ = f.Close() // opened for reading
	}
	return findings
}

// count fills in the counters of the result.
func (r *run) count(snap *Snapshot, history *History) {
	for _, s := range snap.Expectations {
		if s.Accepted {
			r.result.Accepted++
		}
		if s.Accepted && s.Flood {
			r.result.Flood += len(s.Images)
		}
		if s.Deleted {
			r.result.Deleted++
		}
	}
	alive := snap.alive()
	for _, img := range snap.Images {
		if _, ok := alive[img.ProductID]; !ok {
			continue
		}
		switch img.Status {
		case "ready":
			r.result.Ready++
		case "failed":
			r.result.Failed++
		}
	}
	for request, n := range history.counts {
		r.result.Requests += n
		if strings.HasPrefix(request, abuseRequest) {
			r.result.Abuse += n
		}
	}
	r.result.Events = len(snap.Events)
}

// keep writes the findings to the journal, and the history of rows and events to changes.jsonl.
func (r *run) keep(snap *Snapshot) error {
	f, err := os.Create(filepath.Join(r.dir, "changes.jsonl"))
	if err != nil {
		return fmt.Errorf("keep changes: %w", err)
	}
	out := bufio.NewWriter(f)
	for _, c := range snap.recorded {
		fmt.Fprintf(out, `{"tx":%s,"kind":%q,"op":%q,"old":%s,"new":%s}`+"\n", c.Tx, c.Kind, c.Op, orNull(c.Old), orNull(c.New))
	}
	for _, e := range snap.Events {
		if err := json.NewEncoder(out).Encode(e); err != nil {
			return fmt.Errorf("keep events: %w", err)
		}
	}
	for _, finding := range r.result.Findings {
		fmt.Fprintln(r.journal, finding)
	}
	return errors.Join(out.Flush(), f.Close())
}

func orNull(raw []byte) string {
	if len(raw) == 0 {
		return "null"
	}
	return string(raw)
}

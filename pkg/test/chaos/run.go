package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"vitrine.io/pkg/test/client"
)

// Result is what became of one run, a line of the results' file.
type Result struct {
	Seed     uint64    `json:"seed"`
	Version  string    `json:"version"` // of the programs
	OK       bool      `json:"ok"`
	Faults   int       `json:"faults"`
	Lost     int       `json:"lost_commits"`
	Accepted int       `json:"accepted"` // products
	Deleted  int       `json:"deleted"`
	Ready    int       `json:"ready"` // pictures
	Failed   int       `json:"failed"`
	Requests int       `json:"requests"`
	Events   int       `json:"events"`
	Settled  float64   `json:"settled_after"` // seconds since the last fault
	Seconds  float64   `json:"seconds"`       // of the whole run
	Started    time.Time `json:"began"`
	Findings []Finding `json:"findings,omitempty"`
	Logs     string    `json:"logs,omitempty"` // directory, kept if the run failed
}

// String is the result as one line.
func (r Result) String() string {
	verdict := "ok"
	if !r.OK {
		verdict = "FAILED"
	}
	return fmt.Sprintf("seed %-4d %-6s %2d faults  %2d COMMITs lost  %4d requests  %3d products (%d deleted)  "+
		"%3d pictures ready, %3d failed  %4d events  settled after %4.1fs  %5.1fs",
		r.Seed, verdict, r.Faults, r.Lost, r.Requests, r.Accepted, r.Deleted, r.Ready, r.Failed, r.Events, r.Settled, r.Seconds)
}

// Harness runs seeds on a site.
type Harness struct {
	Backends    *Backends
	Bin     string // directory of the programs
	Version string // of them
	Logs    string // directory for those of runs that fail
	Environ []string
	Length  time.Duration // how long clients are at work
}

// Run runs one seed. An error is that the harness itself could not do its work; what it found is in the result.
func (h *Harness) Run(ctx context.Context, seed uint64) (Result, error) {
	began := time.Now()
	schedule := Plan(seed, h.Length)
	r := Result{Seed: seed, Version: h.Version, Faults: len(schedule.Faults), Started: began.UTC()}
	name := fmt.Sprintf("chaos_%d_%d", seed, began.Unix())
	dir := filepath.Join(h.Logs, name)
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return r, fmt.Errorf("make directory for logs: %w", err)
	}
	journal, err := os.Create(filepath.Join(dir, "faults.log"))
	if err != nil {
		return r, fmt.Errorf("make journal: %w", err)
	}
	defer journal.Close()
	if err := schedule.Print(journal); err != nil {
		return r, fmt.Errorf("write journal: %w", err)
	}
	system, err := NewSystem(ctx, h.Backends, name, h.Bin, dir, h.Environ)
	if err != nil {
		return r, fmt.Errorf("set up: %w", err)
	}
	run := &run{harness: h, system: system, schedule: schedule, dir: dir, journal: journal, result: &r}
	err = run.all(ctx)
	err = errors.Join(err, system.Remove(context.WithoutCancel(ctx)))
	r.Seconds = time.Since(began).Seconds()
	r.OK = err == nil && len(r.Findings) == 0
	if r.OK || ctx.Err() != nil { // a run that was stopped has nothing to tell
		return r, errors.Join(err, os.RemoveAll(dir))
	}
	r.Logs = dir
	return r, err
}

// run is one seed under way.
type run struct {
	harness  *Harness
	system   *System
	schedule Schedule
	dir      string
	journal  io.Writer
	result   *Result
}

func (r *run) find(findings ...Finding) { r.result.Findings = append(r.result.Findings, findings...) }

// all is the story of a run: chaos, healing, settling, and the look at what is left.
func (r *run) all(ctx context.Context) error {
	log, err := os.Create(filepath.Join(r.dir, "clients.jsonl"))
	if err != nil {
		return fmt.Errorf("make history: %w", err)
	}
	defer log.Close()
	history := NewHistory(log)
	if err := r.system.Start(ctx); err != nil {
		return fmt.Errorf("start programs: %w", err)
	}
	can := abilities(ctx, r.system.apis[0])
	clients, err := r.chaos(ctx, history, can)
	if err != nil {
		return err
	}
	healed := time.Now()
	findings, err := r.system.heal(ctx)
	r.find(findings...)
	if err != nil {
		r.find(Finding{"everything comes back", err.Error()})
		return nil
	}
	for _, c := range clients {
		c.resolve(ctx)
	}
	note := func(line string) { fmt.Fprintf(r.journal, "%6.2fs  %s\n", time.Since(healed).Seconds(), line) }
	if err := r.system.awaitSettled(ctx, note); err != nil {
		r.find(Finding{"everything settles", err.Error()})
	}
	r.result.Settled = time.Since(healed).Seconds()
	sleep(ctx, time.Until(healed.Add(cacheTTL*11/10+time.Second))) // the cache's own spread, and a moment
	world, err := r.system.collect(ctx, history.expectations)
	if err != nil {
		return fmt.Errorf("gather: %w", err)
	}
	if err := r.system.runDeletions(ctx); err != nil {
		r.find(Finding{"all intents are dealt with", err.Error()})
	}
	if world.AfterDeletions, err = r.system.objects(ctx, false); err != nil {
		return fmt.Errorf("gather: %w", err)
	}
	if err := r.system.Stop(); err != nil {
		r.find(Finding{"a program that is told to stop ends in order", err.Error()})
	}
	r.find(history.findings...)
	r.find(Check(world)...)
	r.find(r.readLogs()...)
	r.count(world, history)
	if len(r.result.Findings) > 0 {
		return r.keep(world)
	}
	return nil
}

// chaos has clients at work and faults happening, until both are over.
func (r *run) chaos(ctx context.Context, history *History, can Abilities) ([]*apiUser, error) {
	all := make([]*apiUser, clients)
	for i := range all {
		all[i] = newAPIUser(i, r.schedule.Seed, r.system.apis, r.harness.Backends.Source.URL, can, history)
		if err := all[i].register(ctx); err != nil {
			return nil, err
		}
	}
	b := &faultInjector{system: r.system, start: time.Now(), log: r.journal}
	work, stop := context.WithTimeout(ctx, r.schedule.Length)
	defer stop()
	before := r.harness.Backends.proxies["to postgres"].CommitsLost()
	var both sync.WaitGroup
	for _, c := range all {
		both.Go(func() {
			c.work(work)
			c.client.Close()
		})
	}
	both.Go(func() { b.run(ctx, r.schedule) })
	both.Wait()
	r.result.Lost = r.harness.Backends.proxies["to postgres"].CommitsLost() - before
	r.find(b.findings...)
	return all, ctx.Err()
}

// abilities finds out what the API can do.
func abilities(ctx context.Context, api string) Abilities {
	c := client.New("", client.Options{Timeout: clientTimeout})
	defer c.Close()
	known := func(method, path string, body any) bool {
		a, err := c.Do(ctx, method, api+path, body)
		return err == nil && a.Code() != "no_such_route" && a.Code() != "method_not_allowed"
	}
	const nobody = "/products/999999999"
	can := Abilities{
		Patch:     known(http.MethodPatch, nobody, map[string]string{"product_price": "1.00"}),
		Delete:    known(http.MethodDelete, nobody, nil),
		Reprocess: known(http.MethodPost, nobody+"/images/1/reprocess", nil),
	}
	can.Idempotency = can.Patch
	return can
}

// readLogs looks for what no program may say.
func (r *run) readLogs() []Finding {
	var findings []Finding
	for name := range r.system.programs {
		f, err := os.Open(filepath.Join(r.dir, name+".log"))
		if err != nil {
			findings = append(findings, Finding{"a program has a log", err.Error()})
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
		_ = f.Close() // it was only read
	}
	return findings
}

// count fills in the result's numbers.
func (r *run) count(w *Snapshot, history *History) {
	for _, s := range w.Expectations {
		if s.Accepted {
			r.result.Accepted++
		}
		if s.Deleted {
			r.result.Deleted++
		}
	}
	alive := w.alive()
	for _, img := range w.Images {
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
	for _, n := range history.counts {
		r.result.Requests += n
	}
	r.result.Events = len(w.Events)
}

// keep writes down what was found, and the rows' history.
func (r *run) keep(w *Snapshot) error {
	f, err := os.Create(filepath.Join(r.dir, "changes.jsonl"))
	if err != nil {
		return fmt.Errorf("keep changes: %w", err)
	}
	out := bufio.NewWriter(f)
	for _, c := range w.Changes {
		fmt.Fprintf(out, `{"kind":%q,"op":%q,"old":%s,"new":%s}`+"\n", c.Kind, c.Op, orNull(c.rawOld), orNull(c.rawNew))
	}
	for _, e := range w.Events {
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

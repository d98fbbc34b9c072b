package postgres_test

import (
	"fmt"
	"testing"
	"time"

	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/domain/scheduler"
	"vitrine.io/pkg/foundation/event"
	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
)

func TestRelease(t *testing.T) {
	t.Parallel()
	runStoreTests(t, []storeTest{
		{name: "second_user_is_released_in_the_first_round", run: secondUserFirst},
		{name: "full_host_and_delayed_jobs_wait", run: fullHostAndDelayedJobs},
		{name: "live_jobs_go_before_bulk_jobs", run: liveBeforeBulk},
		{name: "search_continues_where_it_ended", run: searchContinues},
		{name: "one_round_runs_at_a_time", run: oneRoundAtATime},
		{name: "locked_job_is_skipped", run: lockedJobSkipped},
		{name: "job_and_message_are_one_transaction", run: releaseIsAtomic},
		{name: "edit_of_a_released_job_starts_again", run: editStartsAgain},
		{name: "insert_releases_up_to_half_of_the_windows", run: insertReleasesHalf},
	})
}

// backlog adds products of a user with so many images at a host, and jobs of a class. Their messages are taken.
func (f *fixture) backlog(user catalog.UserID, host string, images int, class catalog.Class) []catalog.Product {
	f.Helper()
	var all []catalog.Product
	for ; images > 0; images -= catalog.MaxImages {
		draft := f.Draft(min(images, catalog.MaxImages))
		if user == 0 {
			user = draft.UserID
		}
		draft.UserID = user
		for i := range draft.Images {
			draft.Images[i].Host, draft.Images[i].Class = host, class
		}
		all = append(all, f.Insert(draft))
	}
	return all
}

// released returns how many jobs of each user are in flight.
func (f *fixture) released() map[catalog.UserID]int {
	f.Helper()
	conn := connect(f.T, f.dsn)
	rows, err := conn.Query(f.Context(), `SELECT user_id, count(*) FROM image_jobs WHERE released_at IS NOT NULL GROUP BY 1`)
	f.Must(err, "count")
	defer rows.Close()
	counts := map[catalog.UserID]int{}
	for rows.Next() {
		var user, n int64
		f.Must(rows.Scan(&user, &n), "scan")
		counts[catalog.UserID(user)] = int(n)
	}
	return counts
}

func secondUserFirst(f *fixture) {
	big := f.backlog(0, "h.example", 150, catalog.Bulk)[0].UserID
	w := scheduler.Windows{Host: 64, Total: 90}
	f.Same(f.round(w).Released[catalog.Bulk], 64, "jobs of the first round")
	same := f.backlog(0, "h.example", 10, catalog.Bulk)[0].UserID
	other := f.backlog(0, "i.example", 10, catalog.Bulk)[0].UserID
	conn := connect(f.T, f.dsn)
	run(f.T, conn, `DELETE FROM image_jobs WHERE image_id IN
		(SELECT image_id FROM image_jobs WHERE released_at IS NOT NULL LIMIT 20)`) // they have ended
	r := f.round(w)
	f.Same(r.InFlight, 44, "in flight before the round")
	f.Same(f.released(), map[catalog.UserID]int{big: 54, same: 10, other: 10}, "in flight")
	f.Same(len(f.takeDue(f)), 94, "messages")
	waiting, err := f.store.CountWaiting(f.Context())
	f.Must(err, "count waiting")
	f.Same(waiting, map[catalog.Class]int{catalog.Bulk: 76}, "waiting")
}

func fullHostAndDelayedJobs(f *fixture) {
	p := f.backlog(0, "h.example", 3, catalog.Bulk)[0]
	f.backlog(p.UserID, "i.example", 3, catalog.Bulk)
	_, err := f.store.Edit(f.Context(), p.ID, func(p *catalog.Product, now time.Time) (catalog.Change, error) {
		p.Images[0].NotBefore = now.Add(time.Hour)
		return catalog.Change{}, nil
	})
	f.Must(err, "edit")
	w := scheduler.Windows{Host: 1, Total: 100}
	f.Same(f.round(w).Released[catalog.Bulk], 2, "released, one of each host")
	f.Same(f.round(w).Released[catalog.Bulk], 0, "released while both hosts are full")
	w.Host = 10
	f.Same(f.round(w).Released[catalog.Bulk], 3, "released, but for the delayed one")
	if img := f.Load(p.ID).Images[0]; !img.ReleasedAt.IsZero() {
		f.Errorf("released at %s, before %s", img.ReleasedAt, img.NotBefore)
	}
	w.Total = 5
	f.Same(f.round(w), scheduler.Round{
		Acquired: true, InFlight: 5, Released: map[catalog.Class]int{catalog.Live: 0, catalog.Bulk: 0},
		Next: map[catalog.Class]scheduler.Flow{catalog.Live: {}, catalog.Bulk: {}},
	}, "a round with a full window")
}

func liveBeforeBulk(f *fixture) {
	f.store = f.store.Releasing(scheduler.Windows{})
	f.Store = f.store
	f.backlog(0, "h.example", 5, catalog.Bulk)
	f.backlog(0, "h.example", 5, catalog.Live)
	r := f.round(scheduler.Windows{Host: 7, Total: 100})
	f.Same(r.Released, map[catalog.Class]int{catalog.Live: 5, catalog.Bulk: 2}, "released")
}

func searchContinues(f *fixture) {
	user := f.backlog(0, "h0.example", 1, catalog.Bulk)[0].UserID
	for i := range 4 {
		f.backlog(user, fmt.Sprintf("h%d.example", i+1), 1, catalog.Bulk)
	}
	second := f.backlog(0, "h0.example", 1, catalog.Bulk)[0].UserID
	var seen [][]scheduler.Waiting
	search := scheduler.Search{Windows: windows, After: map[catalog.Class]scheduler.Flow{}, MaxFlows: 2, MaxHosts: 3, MaxDue: 9}
	for range 4 {
		r, err := f.store.Release(f.Context(), search, func(class catalog.Class, w []scheduler.Waiting, _ map[scheduler.Flow]int,
		) []scheduler.Grant {
			if class == catalog.Bulk {
				seen = append(seen, w)
			}
			return nil
		})
		f.Must(err, "release")
		search.After = r.Next
	}
	host := func(user catalog.UserID, n int) scheduler.Waiting {
		return scheduler.Waiting{Flow: scheduler.Flow{User: user, Host: fmt.Sprintf("h%d.example", n)}, Due: 1}
	}
	f.Same(seen, [][]scheduler.Waiting{
		{host(user, 0), host(user, 1)}, {host(user, 2), host(user, 3)}, {host(user, 4), host(second, 0)}, {},
	}, "the flows of each round")
	search.MaxFlows, search.After, seen = 10, nil, nil
	_, err := f.store.Release(f.Context(), search, func(_ catalog.Class, w []scheduler.Waiting, _ map[scheduler.Flow]int,
	) []scheduler.Grant {
		seen = append(seen, w)
		return nil
	})
	f.Must(err, "release")
	f.Same(seen[1], []scheduler.Waiting{host(user, 0), host(user, 1), host(user, 2), host(second, 0)},
		"the flows of a round that reads three hosts of a user")
}

func oneRoundAtATime(f *fixture) {
	f.backlog(0, "h.example", 2, catalog.Bulk)
	search := scheduler.Search{Windows: windows, MaxFlows: 10, MaxHosts: 10, MaxDue: 10}
	_, err := f.store.Release(f.Context(), search,
		func(class catalog.Class, w []scheduler.Waiting, inFlight map[scheduler.Flow]int) []scheduler.Grant {
			if class == catalog.Live {
				if other := f.round(windows); other.Acquired {
					f.Errorf("got %+v, want no second round", other)
				}
			}
			return scheduler.NewPlanner(windows).Plan(w, inFlight, 10)
		})
	f.Must(err, "release")
	f.Same(len(f.takeDue(f)), 2, "messages")
}

func lockedJobSkipped(f *fixture) {
	p := f.backlog(0, "h.example", 3, catalog.Bulk)[0]
	conn := connect(f.T, f.dsn)
	run(f.T, conn, `BEGIN`)
	run(f.T, conn, fmt.Sprintf(`DELETE FROM image_jobs WHERE image_id = %d`, p.Images[1].ID)) // as an edit does
	f.Same(f.round(windows).Released[catalog.Bulk], 2, "released")
	run(f.T, conn, `ROLLBACK`)
	f.Same(f.round(windows).Released[catalog.Bulk], 1, "released after that")
}

func releaseIsAtomic(f *fixture) {
	p := f.backlog(0, "h.example", 2, catalog.Bulk)[0]
	conn := connect(f.T, f.dsn)
	run(f.T, conn, `ALTER TABLE outbox ADD CONSTRAINT broken CHECK (type = '')`)
	search := scheduler.Search{Windows: windows, MaxFlows: 10, MaxHosts: 10, MaxDue: 10}
	grant := func(catalog.Class, []scheduler.Waiting, map[scheduler.Flow]int) []scheduler.Grant {
		return []scheduler.Grant{{Flow: scheduler.Flow{User: p.UserID, Host: "h.example"}, Jobs: 2}}
	}
	if _, err := f.store.Release(f.Context(), search, grant); err == nil {
		f.Error("released without messages")
	}
	f.Same(f.Load(p.ID).Images, p.Images, "the images: no job is released if its message cannot be sent")
	run(f.T, conn, `ALTER TABLE outbox DROP CONSTRAINT broken`)
	f.Same(f.round(windows).Released[catalog.Bulk], 2, "released after that")
}

func editStartsAgain(f *fixture) {
	p := f.backlog(0, "h.example", 1, catalog.Bulk)[0]
	var seen []bool
	edited, err := f.store.Edit(f.Context(), p.ID, func(p *catalog.Product, _ time.Time) (catalog.Change, error) {
		seen = append(seen, p.Images[0].ReleasedAt.IsZero())
		if len(seen) == 1 {
			f.round(windows)
		}
		p.Images[0].Traceparent = "changed"
		return catalog.Change{}, nil
	})
	f.Must(err, "edit")
	f.Same(seen, []bool{true, false}, "whether the job was waiting, as the edit saw it")
	got := f.Load(p.ID)
	f.Same(got, edited, "the product")
	if img := got.Images[0]; img.Traceparent != "changed" || img.ReleasedAt.IsZero() {
		f.Errorf("got %+v, want both changes", img)
	}
}

func insertReleasesHalf(f *fixture) {
	w := scheduler.Windows{Host: 6, Total: 10}
	f.store = f.store.Releasing(w)
	f.Store = f.store
	count := func(p catalog.Product) (n int) {
		for _, img := range p.Images {
			if !img.ReleasedAt.IsZero() {
				n++
			}
		}
		return n
	}
	f.Same(count(f.backlog(0, "h.example", 10, catalog.Live)[0]), 3, "released of one host")
	f.Same(count(f.backlog(0, "h.example", 10, catalog.Live)[0]), 0, "released once the host is half full")
	f.Same(count(f.backlog(0, "i.example", 10, catalog.Live)[0]), 2, "released until all are half full")
	f.Same(count(f.backlog(0, "j.example", 10, catalog.Live)[0]), 0, "released once all are half full")
	var jobs []event.Message
	for range 2 {
		jobs = append(jobs, f.takeDue(f)...)
	}
	f.Same(len(jobs), 5, "messages")
	f.round(w)
	f.Same(len(f.takeDue(f)), 5, "messages after a round, which fills the window")
}

// TestImageLife follows images through every transition: the outcome is the only update of a row in images. An image that
// waits for the scheduler needs two updates of its job, in the transactions of its release and of Begin.
func TestImageLife(t *testing.T) {
	t.Parallel()
	f := newFixture(t, manyTries)
	conn := connect(t, f.dsn)
	run(t, conn, `CREATE TABLE written (op text, relation text)`)
	run(t, conn, `CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
		$$ BEGIN INSERT INTO written VALUES (TG_OP, TG_TABLE_NAME); RETURN NULL; END $$`)
	run(t, conn, `CREATE TRIGGER note AFTER UPDATE ON images FOR EACH ROW EXECUTE FUNCTION note()`)
	run(t, conn, `CREATE TRIGGER note AFTER UPDATE ON image_jobs FOR EACH ROW EXECUTE FUNCTION note()`)
	updates := func(table string) int {
		return int(scalar[int64](t, conn, `SELECT count(*) FROM written WHERE relation = $1`, table))
	}
	l := imageLife{f: f, Service: f.service()}
	l.p = l.race().p
	l.retryDeferAndPostpone()
	f.Same(updates("images"), 0, "updates of images before an outcome")
	f.Must(l.Finish(t.Context(), l.begin(0), catalog.Result{Width: 1, Height: 1}), "finish")
	f.Must(l.Fail(t.Context(), l.begin(1), catalog.WorkerCrash()), "fail")
	f.Same(updates("images"), 2, "updates of images in the lives of two")
	f.Same(int(scalar[int64](t, conn, `SELECT count(*) FROM image_jobs`)), 0, "jobs")

	run(t, conn, `TRUNCATE written`)
	for _, img := range f.backlog(l.p.UserID, "h.example", 1, catalog.Bulk)[0].Images {
		l.p.ID, l.p.Images = img.ProductID, []catalog.Image{img}
	}
	f.round(windows)
	f.Must(l.Finish(t.Context(), l.begin(0), catalog.Result{Width: 1, Height: 1}), "finish")
	f.Same(updates("image_jobs"), 2, "updates of the job: release and begin")
	f.Same(updates("images"), 1, "updates of the image")
}

// imageLife is a product whose images are taken through their transitions.
type imageLife struct {
	*catalog.Service
	f *fixture
	p catalog.Product
}

func (l *imageLife) race() race { return l.f.race(l.Service) }

func (l *imageLife) job(i int) catalog.Job {
	img := l.f.Load(l.p.ID).Images[i]
	return catalog.Job{ProductID: l.p.ID, ImageID: img.ID, JobID: img.JobID}
}

func (l *imageLife) begin(i int) catalog.Attempt {
	a, err := l.Begin(l.f.Context(), l.job(i), time.Hour)
	l.f.Must(err, "begin")
	return a
}

func (l *imageLife) retryDeferAndPostpone() {
	ctx, policy := l.f.Context(), pipeline.Default().Spec.Retry
	for i := range 2 {
		l.f.Must(l.Retry(ctx, l.begin(i), media.Fail(media.Timeout, "", nil), policy), "retry")
		l.f.Must(l.Defer(ctx, l.begin(i), media.Fail(media.StorageFailed, "", nil), policy, time.Millisecond), "defer")
		l.f.Must(l.Release(ctx, l.begin(i)), "release")
		l.f.Must(l.Postpone(ctx, l.job(i), media.Fail(media.HostBusy, "", nil), policy, time.Millisecond), "postpone")
		l.f.round(windows)
	}
}

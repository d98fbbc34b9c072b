// Package system_test tests the programs as processes on real servers, through their public interfaces.
package system_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	_ "image/jpeg" // format of renditions
	"math"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"golang.org/x/image/draw"
	_ "golang.org/x/image/webp"

	"vitrine.io/pkg/test/client"
	"vitrine.io/pkg/test/imageserver"
	"vitrine.io/pkg/test/servers"
)

func rand() string { return uuid.NewString()[:8] }

func TestEndToEnd(t *testing.T) {
	t.Parallel()
	s := newSystem(t, nil)
	work := s.start("worker")
	api := s.start("api")
	photo, drawing := s.sources.URL+photoPath, s.sources.URL+drawingPath

	posted := s.post(s.user(), photo, drawing, photo, s.sources.URL+"/"+imageserver.Missing, s.sources.URL+"/"+imageserver.Text,
		s.sources.URL+"/"+imageserver.Truncated, s.sources.URL+"/"+imageserver.FlakyTwice, "http://10.0.0.1/private.jpg")
	if posted.ImageStatus != "pending" || len(posted.Images) != 8 {
		t.Fatalf("posted %+v", posted)
	}
	p := s.awaitSettled(posted.ID)

	want := []string{"ready", "ready", "ready", "http_status", "unsupported_format", "corrupt", "ready", "url_forbidden"}
	var got []string
	for _, img := range p.Images {
		if img.Error != nil {
			got = append(got, img.Error.Code)
		} else {
			got = append(got, img.Status)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if p.ImageStatus != "partial" || len(p.Compressed) != 4 {
		t.Errorf("got %s with %d compressed, want partial with 4", p.ImageStatus, len(p.Compressed))
	}
	if flaky := p.Images[6]; flaky.Attempts != 3 {
		t.Errorf("the source that fails twice needed %d attempts, want 3", flaky.Attempts)
	}

	for i, size := range map[int]image.Point{0: image.Pt(1200, 800), 1: image.Pt(500, 400), 2: image.Pt(1200, 800)} {
		img := p.Images[i]
		if image.Pt(img.Width, img.Height) != size || len(img.Renditions) != 6 {
			t.Errorf("image %d: %dx%d with %d renditions, want %v with 6", i, img.Width, img.Height, len(img.Renditions), size)
		}
		for _, r := range img.Renditions {
			s.checkRendition(r.URL, r.Format, image.Pt(r.Width, r.Height), r.Bytes, size)
		}
		if own := fmt.Sprintf("/%d/", img.ID); !strings.Contains(strings.Join(p.Compressed, " "), own) {
			t.Errorf("image %d is not in compressed_product_images: %v", i, p.Compressed)
		}
	}
	s.checkReads(api, p)
	if n := s.metric(work, "vitrine_worker_outcomes_total"); n < 8 {
		t.Errorf("the worker counts %v outcomes, want at least 8", n)
	}
	s.lintMetrics(api)
	s.lintMetrics(work)
}

// lintMetrics checks all metrics of a program as promtool does.
func (s *system) lintMetrics(r *running) {
	s.t.Helper()
	problems, err := promlint.New(bytes.NewReader(s.call(http.MethodGet, r.admin+"/metrics", "").Body)).Lint()
	if err != nil || len(problems) > 0 {
		s.t.Errorf("metrics of %s: %v, %v", r.admin, problems, err)
	}
}

// checkRendition downloads a rendition, checks its headers, format and size, and compares its pixels with the source.
func (s *system) checkRendition(url, format string, size image.Point, length int, source image.Point) {
	s.t.Helper()
	a := s.call(http.MethodGet, url, "")
	if a.Status != http.StatusOK || a.Header.Get("Content-Type") != "image/"+format || len(a.Body) != length {
		s.t.Fatalf("%s: %d, %s, %d bytes, want %s of %d", url, a.Status, a.Header.Get("Content-Type"), len(a.Body), format, length)
	}
	if cc := a.Header.Get("Cache-Control"); !strings.Contains(cc, "immutable") {
		s.t.Errorf("%s: Cache-Control is %q", url, cc)
	}
	m, name, err := image.Decode(bytes.NewReader(a.Body))
	if err != nil || name != format || m.Bounds().Size() != size {
		s.t.Fatalf("%s: %v, %s %v, want %s %v", url, err, name, m.Bounds().Size(), format, size)
	}
	if format == "webp" {
		studioRange(m)
	}
	if d := distance(m, imageserver.Scene(source.X, source.Y)); d > 4 {
		s.t.Errorf("%s differs from its source by %.1f of 255 on average", url, d)
	}
}

// studioRange expands the studio range of WebP's luma and chroma (16 to 235 and 16 to 240) to the full range that
// image.YCbCr has. golang.org/x/image/webp does not do it.
func studioRange(m image.Image) {
	planes, ok := m.(*image.YCbCr)
	if !ok {
		return
	}
	stretch := func(plane []uint8, low, span, middle float64) {
		for i, v := range plane {
			plane[i] = uint8(math.Max(0, math.Min(255, (float64(v)-low)*255/span+middle)))
		}
	}
	stretch(planes.Y, 16, 219, 0)
	stretch(planes.Cb, 128, 224, 128)
	stretch(planes.Cr, 128, 224, 128)
}

// distance returns the mean difference of two images' channels, from 0 to 255, after scaling both to 64x64.
func distance(a, b image.Image) float64 {
	small := func(m image.Image) *image.RGBA {
		to := image.NewRGBA(image.Rect(0, 0, 64, 64))
		draw.CatmullRom.Scale(to, to.Bounds(), m, m.Bounds(), draw.Src, nil)
		return to
	}
	x, y := small(a), small(b)
	var sum float64
	for i := range x.Pix {
		sum += math.Abs(float64(x.Pix[i]) - float64(y.Pix[i]))
	}
	return sum / float64(len(x.Pix)) * 4 / 3 // alpha is the same in both
}

// checkReads checks GET, the cache, If-None-Match, the list and 404.
func (s *system) checkReads(api *running, p client.Product) {
	s.t.Helper()
	path := fmt.Sprintf("/products/%d", p.ID)
	first := s.call(http.MethodGet, path, "")
	hits := s.metric(api, "vitrine_rediscache_gets_total{outcome=\"hit\"}")
	second := s.call(http.MethodGet, path, "")
	if !bytes.Equal(first.Body, second.Body) || s.metric(api, "vitrine_rediscache_gets_total{outcome=\"hit\"}") <= hits {
		s.t.Error("the second read is not a cache hit with the same bytes")
	}
	if a := s.call(http.MethodGet, path, "", "If-None-Match", first.Header.Get("ETag")); a.Status != http.StatusNotModified {
		s.t.Errorf("If-None-Match: got %d, want 304", a.Status)
	}
	var list struct {
		Products []json.RawMessage `json:"products"`
	}
	s.decode(s.call(http.MethodGet, "/products?name=hAi", ""), http.StatusOK, &list)
	if len(list.Products) != 1 || !bytes.Equal(list.Products[0], first.Body) {
		s.t.Errorf("the list's item differs from the response to GET:\n%s\n%s", list.Products, first.Body)
	}
	if a := s.call(http.MethodGet, "/products/999999", ""); a.Status != http.StatusNotFound {
		s.t.Errorf("got %d, want 404", a.Status)
	}
}

func TestWorker(t *testing.T) {
	t.Parallel()
	t.Run("killed", testWorkerKilled)
	t.Run("stopped", testWorkerStopped)
}

func testWorkerKilled(t *testing.T) {
	t.Parallel()
	s := newSystem(t, nil)
	s.start("api")
	killed := s.start("worker")
	p := s.post(s.user(), s.sources.URL+"/"+imageserver.Held)
	<-s.sources.HeldRequests()
	if err := syscall.Kill(killed.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-killed.Exited()
	s.sources.Release()
	s.start("worker")
	got := s.awaitSettled(p.ID)
	if got.ImageStatus != "ready" || got.Images[0].Attempts != 1 {
		t.Fatalf("got %+v", got)
	}
	if !strings.Contains(got.Compressed[0], "/2-") {
		t.Errorf("%s is not of the second attempt", got.Compressed[0])
	}
}

func testWorkerStopped(t *testing.T) {
	t.Parallel()
	s := newSystem(t, nil)
	s.start("api")
	first := s.start("worker", "VITRINE_SHUTDOWN_GRACE=60s")
	p := s.post(s.user(), s.sources.URL+"/"+imageserver.Held)
	<-s.sources.HeldRequests()
	if err := syscall.Kill(first.PID(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	s.sources.Release() // the worker finishes the image before it exits
	<-first.Exited()
	if state := first.State(); state != "exit status 0" {
		t.Errorf("the worker ended with %s", state)
	}
	if got := s.awaitSettled(p.ID); got.ImageStatus != "ready" {
		t.Errorf("got %+v", got)
	}
}

func TestOutage(t *testing.T) {
	t.Parallel()
	t.Run("postgres", testOutagePostgres)
	t.Run("kafka", testOutageKafka)
	t.Run("redis", testOutageRedis)
}

func testOutagePostgres(t *testing.T) {
	t.Parallel()
	db := servers.PostgresServer(t)
	s := newSystem(t, map[string]string{"VITRINE_POSTGRES_DSN": db.DSN})
	api := s.start("api")
	work := s.start("worker")
	user := s.user()
	p := s.post(user)
	path := fmt.Sprintf("/products/%d", p.ID)
	want := s.call(http.MethodGet, path, "")

	db.Stop(t)
	if got := s.call(http.MethodGet, path, ""); got.Status != http.StatusOK || !bytes.Equal(got.Body, want.Body) {
		t.Errorf("without Postgres a cache hit got %d, want the same response", got.Status)
	}
	got := s.call(http.MethodGet, "/products?user_id=1", "")
	if got.Status != http.StatusServiceUnavailable || got.Header.Get("Retry-After") == "" {
		t.Errorf("without Postgres a list got %d, want 503 with Retry-After: %s", got.Status, got.Body)
	}
	eventually(t, "the worker pauses consumption", func() error {
		if s.metric(work, "vitrine_kafka_paused") != 2 {
			return errors.New("one of its two consumers is not paused")
		}
		return nil
	})
	for _, path := range []string{"/readyz", "/healthz"} { // the cached product is served only while the pod is ready
		if err := checkStatus(api.admin+path, http.StatusOK); err != nil {
			t.Errorf("%s fails without Postgres: %v", path, err)
		}
	}
	db.Start(t)
	eventually(t, "lists are answered again", func() error {
		if got := s.call(http.MethodGet, "/products?user_id=1", ""); got.Status != http.StatusOK {
			return fmt.Errorf("got %d", got.Status)
		}
		return nil
	})
	if got := s.awaitSettled(s.post(user, s.sources.URL+photoPath).ID); got.ImageStatus != "ready" {
		t.Errorf("got %+v", got)
	}
}

func testOutageKafka(t *testing.T) {
	t.Parallel()
	broker := servers.KafkaServer(t)
	s := newSystem(t, map[string]string{"VITRINE_KAFKA_BROKERS": strings.Join(broker.Addrs, ",")})
	api := s.start("api")
	s.start("worker")
	user := s.user()
	broker.Stop(t)
	p := s.post(user, s.sources.URL+photoPath)
	eventually(t, "the metrics show due outbox rows", func() error {
		if due := s.metric(api, "vitrine_relay_outbox_due"); due < 2 {
			return fmt.Errorf("%v rows are due", due)
		}
		return nil
	})
	broker.Start(t)
	if got := s.awaitSettled(p.ID); got.ImageStatus != "ready" {
		t.Errorf("got %+v", got)
	}
}

func testOutageRedis(t *testing.T) {
	t.Parallel()
	cluster := servers.RedisServer(t)
	s := newSystem(t, map[string]string{"VITRINE_REDIS_ADDRS": strings.Join(cluster.Addrs, ",")})
	api := s.start("api")
	s.start("worker")
	user := s.user()
	p := s.post(user, s.sources.URL+"/"+imageserver.Held)
	<-s.sources.HeldRequests()
	if got := s.call(http.MethodGet, fmt.Sprintf("/products/%d", p.ID), ""); got.Status != http.StatusOK {
		t.Fatalf("got %d", got.Status)
	}
	cluster.Stop(t)
	s.sources.Release()
	if got := s.awaitSettled(p.ID); got.ImageStatus != "ready" { // read etagsByProduct the cache
		t.Errorf("got %+v", got)
	}
	cluster.Start(t)
	hits := s.metric(api, "vitrine_rediscache_gets_total{outcome=\"hit\"}")
	eventually(t, "the cache is used again", func() error {
		if got := s.awaitSettled(p.ID); got.ImageStatus != "ready" { // never stale
			t.Fatalf("got %+v", got)
		}
		if s.metric(api, "vitrine_rediscache_gets_total{outcome=\"hit\"}") == hits {
			return errors.New("no hit")
		}
		return nil
	})
}

func TestSecretsFromFiles(t *testing.T) {
	t.Parallel()
	s := newSystem(t, nil)
	file := s.dir + "/dsn"
	if err := os.WriteFile(file, []byte(s.env["VITRINE_POSTGRES_DSN"]+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.env["VITRINE_POSTGRES_DSN_FILE"] = file
	dsn := s.env["VITRINE_POSTGRES_DSN"]
	delete(s.env, "VITRINE_POSTGRES_DSN")
	s.start("api")
	s.env["VITRINE_POSTGRES_DSN"] = dsn
	s.user()
}

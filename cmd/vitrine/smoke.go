package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	_ "image/gif" // formats of renditions
	_ "image/jpeg"
	_ "image/png"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	_ "golang.org/x/image/webp"
	"golang.org/x/sync/errgroup"
)

const (
	downloadTimeout = 30 * time.Second // for one response, its body included
	maxFile         = 256 << 20        // bytes; the largest size in the JSON that is accepted
)

// smokeOptions are the flags of smoke.
type smokeOptions struct {
	api         string
	sources     []string
	rewrites    []string // FROM=TO
	timeout     time.Duration
	concurrency int
}

func (c console) smokeCommand() *cobra.Command {
	var o smokeOptions
	cmd := &cobra.Command{
		Use: "smoke", Short: "Test a running Vitrine from outside: post a product, wait for its images, download them all",
		Args: cobra.NoArgs,
		Long: `Adds a user and a product with an image of each source, waits until all are ready, and downloads every URL of the
product's JSON: each must respond with 200 and the type, the size in bytes and the dimensions of the JSON (dimensions of AVIF
files are not checked). The user and the product are not deleted. Exits with 1 if anything differs.`,
		Example: "  vitrine smoke --api http://localhost:8080 --source https://photos.example/lamp.jpg",
		RunE:    func(cmd *cobra.Command, _ []string) error { return c.smoke(cmd.Context(), o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.api, "api", "", "URL of the API")
	f.StringArrayVar(&o.sources, "source", nil, "URL of an image, as the workers reach it; repeatable")
	f.StringArrayVar(&o.rewrites, "rewrite", nil,
		"FROM=TO: download a URL that begins with FROM from TO, if the public address cannot be reached from here; repeatable")
	f.DurationVar(&o.timeout, "timeout", 2*time.Minute, "longest time for the whole test")
	f.IntVar(&o.concurrency, "concurrency", 4, "downloads at a time")
	return cmd
}

func (o smokeOptions) check() error {
	var wrong mistakes
	wrong.check(isWebURL(o.api), "--api: give the URL of the API, with http:// or https://")
	wrong.check(len(o.sources) > 0, "--source: give the URL of an image")
	for _, text := range o.rewrites {
		wrong.check(strings.Index(text, "=") > 0, "--rewrite: %q is not FROM=TO", text)
	}
	wrong.check(o.timeout > 0, "--timeout: must be above 0")
	wrong.check(o.concurrency > 0, "--concurrency: must be at least 1")
	return wrong.err()
}

func (c console) smoke(ctx context.Context, o smokeOptions) error {
	if err := o.check(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	start := time.Now()
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: o.concurrency}
	defer transport.CloseIdleConnections()
	web := &http.Client{
		Transport: transport, Timeout: downloadTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // URLs must not redirect
	}
	p, err := c.smokeProduct(ctx, apiClient{base: strings.TrimRight(o.api, "/"), web: web}, o)
	if err != nil {
		return fmt.Errorf("smoke: %w", err)
	}
	files, size, err := c.downloadAll(ctx, web, o, p)
	if err != nil {
		return fmt.Errorf("smoke: %w", err)
	}
	c.say("product %d is complete: %d images, %d files, %d bytes, in %s",
		p.ID, len(p.Images), files, size, time.Since(start).Round(time.Millisecond))
	return nil
}

// smokeProduct adds a user and a product and waits for its images. It retries while the API is not available.
func (c console) smokeProduct(ctx context.Context, api apiClient, o smokeOptions) (product, error) {
	var p product
	err := retry(ctx, func(ctx context.Context) error {
		user, err := api.addUser(ctx, "Smoke test", "smoke-"+uuid.NewString()+"@example.com")
		if err == nil {
			p, err = api.addProduct(ctx, user, "Smoke test", "Added by vitrine smoke", o.sources)
		}
		return err
	}, c.sayWaiting)
	if err != nil {
		return p, fmt.Errorf("add a product: %w", err)
	}
	c.say("posted product %d with %d images", p.ID, len(o.sources))
	p, err = api.awaitImages(ctx, p.ID, func(i int, p product) {
		c.say("image %d of %d is %s: %s", i+1, len(p.Images), p.Images[i].Status, p.Images[i].SourceURL)
	}, c.sayWaiting)
	if err != nil {
		return p, fmt.Errorf("wait for product %d: %w", p.ID, err)
	}
	return p, p.checkComplete(o.sources)
}

// checkComplete returns an error for each difference between a product and a ready product with these sources.
func (p product) checkComplete(sources []string) error {
	var wrong mistakes
	wrong.check(slices.Equal(p.Sources, sources) && len(p.Images) == len(sources),
		"product %d has the images %q (%d of them), not %q", p.ID, p.Sources, len(p.Images), sources)
	var urls []string
	for i, img := range p.Images {
		if e := img.Error; e != nil {
			wrong.check(false, "image %d (%s) is %s: %s: %s", i+1, img.SourceURL, img.Status, e.Code, e.Detail)
		} else {
			wrong.check(img.Status == "ready" && len(img.Renditions) > 0 && img.Width > 0 && img.Height > 0,
				"image %d (%s) is %s, %d x %d, in %d renditions",
				i+1, img.SourceURL, img.Status, img.Width, img.Height, len(img.Renditions))
		}
		for _, r := range img.Renditions {
			urls = append(urls, r.URL)
		}
	}
	wrong.check(len(wrong) > 0 || p.ImageStatus == "ready" && len(p.Compressed) == len(sources),
		"product %d is %s with %d compressed images of %d", p.ID, p.ImageStatus, len(p.Compressed), len(sources))
	for _, url := range p.Compressed {
		wrong.check(slices.Contains(urls, url), "product %d: the compressed image %s is not one of its renditions", p.ID, url)
	}
	return wrong.err()
}

// downloadAll downloads every rendition, and returns how many there were and their bytes.
func (c console) downloadAll(
	ctx context.Context, web *http.Client, o smokeOptions, p product,
) (files int, size int64, err error) {
	var all []rendition
	for _, img := range p.Images {
		all = append(all, img.Renditions...)
	}
	wrong := make([]error, len(all))
	var group errgroup.Group
	group.SetLimit(o.concurrency)
	for i, r := range all {
		size += r.Bytes
		group.Go(func() error {
			if err := r.checkFile(ctx, web, o.rewrite(r.URL)); err != nil {
				wrong[i] = fmt.Errorf("%s as %s: %s: %w", r.Name, r.Format, r.URL, err)
			}
			return nil // all errors are reported
		})
	}
	_ = group.Wait()
	return len(all), size, errors.Join(wrong...)
}

// rewrite returns the address from which this program downloads url.
func (o smokeOptions) rewrite(url string) string {
	for _, text := range o.rewrites {
		from, to, _ := strings.Cut(text, "=")
		if rest, ok := strings.CutPrefix(url, from); ok {
			return to + rest
		}
	}
	return url
}

// checkFile downloads url and compares status, type, size and dimensions with r.
func (r rendition) checkFile(ctx context.Context, web *http.Client, url string) error {
	if r.Bytes < 1 || r.Bytes > maxFile {
		return fmt.Errorf("%d is not a valid size", r.Bytes)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := web.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, r.Bytes+1)) // one byte more shows that the file is larger
	if err != nil {
		return fmt.Errorf("read: %w", err)
	}
	media, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	switch {
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("the response is %s", resp.Status)
	case media != "image/"+r.Format:
		return fmt.Errorf("the type is %q, not image/%s", media, r.Format)
	case int64(len(body)) != r.Bytes:
		return fmt.Errorf("it does not have %d bytes: %d were read", r.Bytes, len(body))
	}
	return r.checkHeader(body)
}

// checkHeader compares a file's header with the format and the dimensions of r; of AVIF it checks only the brand.
func (r rendition) checkHeader(body []byte) error {
	if r.Format == "avif" {
		if len(body) < 12 || string(body[4:8]) != "ftyp" || !bytes.HasPrefix(body[8:12], []byte("avi")) {
			return errors.New("it is not an AVIF file")
		}
		return nil
	}
	head, format, err := image.DecodeConfig(bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("read its header: %w", err)
	}
	if format != r.Format || head.Width != r.Width || head.Height != r.Height {
		return fmt.Errorf("it is %s of %d x %d, not %s of %d x %d", format, head.Width, head.Height, r.Format, r.Width, r.Height)
	}
	return nil
}

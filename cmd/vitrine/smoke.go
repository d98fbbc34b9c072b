package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	_ "image/gif" // what renditions may be
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
	downloadPatience = 30 * time.Second // of one answer, its body included
	maxFile          = 256 << 20        // bytes that are downloaded on the word of the JSON
)

// smokeOptions are what can be said about smoke.
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
		Use: "smoke", Short: "Try a running Vitrine from outside: post a product, wait for its pictures, download them all",
		Args: cobra.NoArgs,
		Long: `Adds a user and a product with a picture of each source, waits until all are ready, and downloads every URL of the
product's JSON: each has to answer 200 with the type, the size in bytes and the dimensions that the JSON says (of an AVIF the
dimensions are not read). What was added stays. Ends with 0 if all is well, else it says what is not.`,
		Example: "  vitrine smoke --api http://localhost:8080 --source https://photos.example/lamp.jpg",
		RunE:    func(cmd *cobra.Command, _ []string) error { return c.smoke(cmd.Context(), o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.api, "api", "", "URL of the API")
	f.StringArrayVar(&o.sources, "source", nil, "URL of a picture, as the workers reach it; repeatable")
	f.StringArrayVar(&o.rewrites, "rewrite", nil,
		"FROM=TO: download a URL that begins with FROM from TO, if the public address cannot be reached from here; repeatable")
	f.DurationVar(&o.timeout, "timeout", 2*time.Minute, "longest time for all of it")
	f.IntVar(&o.concurrency, "concurrency", 4, "downloads at a time")
	return cmd
}

func (o smokeOptions) check() error {
	var wrong []error
	if !strings.HasPrefix(o.api, "http://") && !strings.HasPrefix(o.api, "https://") {
		wrong = append(wrong, errors.New("--api: give the URL of the API, with http:// or https://"))
	}
	if len(o.sources) == 0 {
		wrong = append(wrong, errors.New("--source: give the URL of a picture"))
	}
	for _, text := range o.rewrites {
		if from, _, ok := strings.Cut(text, "="); !ok || from == "" {
			wrong = append(wrong, fmt.Errorf("--rewrite: %q is not FROM=TO", text))
		}
	}
	if o.timeout <= 0 {
		wrong = append(wrong, errors.New("--timeout: has to be above 0"))
	}
	if o.concurrency < 1 {
		wrong = append(wrong, errors.New("--concurrency: has to be at least 1"))
	}
	return errors.Join(wrong...)
}

func (c console) smoke(ctx context.Context, o smokeOptions) error {
	if err := o.check(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	began := time.Now()
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: o.concurrency}
	defer transport.CloseIdleConnections()
	web := &http.Client{
		Transport: transport, Timeout: downloadPatience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // as given means as given
	}
	p, err := c.smokeProduct(ctx, apiClient{base: strings.TrimRight(o.api, "/"), web: web}, o)
	if err != nil {
		return fmt.Errorf("smoke: %w", err)
	}
	files, size, err := c.downloadAll(ctx, web, o, p)
	if err != nil {
		return fmt.Errorf("smoke: %w", err)
	}
	c.say("product %d is well: %d pictures, %d files, %d bytes, in %s",
		p.ID, len(p.Images), files, size, time.Since(began).Round(time.Millisecond))
	return nil
}

// smokeProduct adds a user and a product and waits for its pictures. An API that is just starting is waited for.
func (c console) smokeProduct(ctx context.Context, api apiClient, o smokeOptions) (product, error) {
	waiting := func(err error) { c.say("waiting: %v", err) }
	var p product
	err := insist(ctx, func(ctx context.Context) error {
		user, err := api.addUser(ctx, "Smoke test", "smoke-"+uuid.NewString()+"@example.com")
		if err == nil {
			p, err = api.addProduct(ctx, user, "Smoke test", "Added by vitrine smoke", o.sources)
		}
		return err
	}, waiting)
	if err != nil {
		return p, fmt.Errorf("add a product: %w", err)
	}
	c.say("posted product %d with %d pictures", p.ID, len(o.sources))
	p, err = api.settled(ctx, p.ID, func(i int, p product) {
		c.say("picture %d of %d is %s: %s", i+1, len(p.Images), p.Images[i].Status, p.Images[i].SourceURL)
	}, waiting)
	if err != nil {
		return p, fmt.Errorf("wait for product %d: %w", p.ID, err)
	}
	return p, p.whole(o.sources)
}

// whole tells in what a product is not the ready product of these sources.
func (p product) whole(sources []string) error {
	var wrong []error
	add := func(format string, args ...any) { wrong = append(wrong, fmt.Errorf(format, args...)) }
	if !slices.Equal(p.Sources, sources) || len(p.Images) != len(sources) {
		add("product %d has the pictures %q (%d of them), not %q", p.ID, p.Sources, len(p.Images), sources)
	}
	var urls []string
	for i, img := range p.Images {
		switch {
		case img.Error != nil:
			add("picture %d (%s) is %s: %s: %s", i+1, img.SourceURL, img.Status, img.Error.Code, img.Error.Detail)
		case img.Status != "ready" || len(img.Renditions) == 0 || img.Width < 1 || img.Height < 1:
			add("picture %d (%s) is %s, %d x %d, in %d renditions",
				i+1, img.SourceURL, img.Status, img.Width, img.Height, len(img.Renditions))
		}
		for _, r := range img.Renditions {
			urls = append(urls, r.URL)
		}
	}
	if len(wrong) == 0 && (p.ImageStatus != "ready" || len(p.Compressed) != len(sources)) {
		add("product %d is %s with %d compressed pictures of %d", p.ID, p.ImageStatus, len(p.Compressed), len(sources))
	}
	for _, url := range p.Compressed {
		if !slices.Contains(urls, url) {
			add("product %d: the compressed picture %s is no rendition of it", p.ID, url)
		}
	}
	return errors.Join(wrong...)
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
			if err := r.download(ctx, web, o.rewrite(r.URL)); err != nil {
				wrong[i] = fmt.Errorf("%s as %s: %s: %w", r.Name, r.Format, r.URL, err)
			}
			return nil // all of them are told
		})
	}
	_ = group.Wait()
	return len(all), size, errors.Join(wrong...)
}

// rewrite returns where url is to be had from here.
func (o smokeOptions) rewrite(url string) string {
	for _, text := range o.rewrites {
		from, to, _ := strings.Cut(text, "=")
		if rest, ok := strings.CutPrefix(url, from); ok {
			return to + rest
		}
	}
	return url
}

// download holds what is at url to what is said of it.
func (r rendition) download(ctx context.Context, web *http.Client, url string) error {
	if r.Bytes < 1 || r.Bytes > maxFile {
		return fmt.Errorf("%d is no size of a picture", r.Bytes)
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
	body, err := io.ReadAll(io.LimitReader(resp.Body, r.Bytes+1)) // one more shows that there is more
	if err != nil {
		return fmt.Errorf("read: %w", err)
	}
	media, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	switch {
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("the answer is %s", resp.Status)
	case media != "image/"+r.Format:
		return fmt.Errorf("the type is %q, not image/%s", media, r.Format)
	case int64(len(body)) != r.Bytes:
		return fmt.Errorf("it has not %d bytes: %d were read", r.Bytes, len(body))
	}
	return r.sized(body)
}

// sized holds a file's header to the format and the dimensions that are said of it. AVIF is known by its brand alone.
func (r rendition) sized(body []byte) error {
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

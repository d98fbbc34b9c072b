package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"
)

// demoTimeout is how long the demonstration waits for its images.
const demoTimeout = 2 * time.Minute

// demonstrate posts a product with the sample images, waits for them and prints their renditions.
func (s *stack) demonstrate(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, demoTimeout)
	defer cancel()
	user, err := s.api().addUser(ctx, "Demo", fmt.Sprintf("demo-%d@example.com", time.Now().UnixNano()))
	if err != nil {
		return fmt.Errorf("user: %w", err)
	}
	var urls []string
	for _, p := range samples() {
		urls = append(urls, "http://"+s.options.samples+"/"+p.file)
	}
	p, err := s.api().addProduct(ctx, user, "Landscapes", "Three sample images", urls)
	if err != nil {
		return fmt.Errorf("product: %w", err)
	}
	s.say("posted product %d with %d images", p.ID, len(urls))
	p, err = s.api().awaitImages(ctx, p.ID, func(i int, p product) {
		s.say("  image %d of %d is %s: %s", i+1, len(p.Images), p.Images[i].Status, p.Images[i].SourceURL)
	}, s.sayWaiting)
	if err != nil {
		return fmt.Errorf("%w: see the logs", err)
	}
	if err := s.table(p); err != nil {
		return err
	}
	s.say("the same requests with curl:\n\n%s", s.curls(user, p.ID, urls))
	return nil
}

func (s *stack) api() apiClient { return apiClient{base: "http://" + s.options.http, web: s.client} }

// table prints every rendition beside its source.
func (s *stack) table(p product) error {
	w := tabwriter.NewWriter(s.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nSOURCE\tBYTES\tRENDITION\tFORMAT\tSIZE\tBYTES\tSAVED\tURL")
	for i, img := range p.Images {
		source := samples()[i]
		file, err := s.gallery.named[source.file]()
		if err != nil {
			return err
		}
		size := int64(len(file))
		head := fmt.Sprintf("%s %dx%d\t%d", strings.TrimPrefix(filepath.Ext(source.file), "."), img.Width, img.Height, size)
		if img.Error != nil {
			fmt.Fprintf(w, "%s\t%s: %s\t\t\t\t\t\n", head, img.Error.Code, img.Error.Detail)
		}
		for _, r := range img.Renditions {
			fmt.Fprintf(w, "%s\t%s\t%s\t%dx%d\t%d\t%.1f %%\t%s\n",
				head, r.Name, r.Format, r.Width, r.Height, r.Bytes, 100-100*float64(r.Bytes)/float64(max(size, 1)), r.URL)
			head = "\t"
		}
		for _, d := range img.Dropped {
			fmt.Fprintf(w, "%s\t%s\t%s\t\t\t\t%s, not stored\n", head, d.Name, d.Format, d.Reason)
		}
	}
	_ = w.Flush() // an error of the terminal cannot be reported
	fmt.Fprintln(s.stdout)
	return nil
}

// curls returns the demonstration's requests as curl commands.
func (s *stack) curls(user, product int64, urls []string) string {
	api := "http://" + s.options.http
	return fmt.Sprintf(`  curl -s -H 'Content-Type: application/json' %[1]s/users -d '{"name":"Ada","email":"ada@example.com"}'
  curl -s -H 'Content-Type: application/json' %[1]s/products \
    -d '{"user_id":%[2]d,"product_name":"Chair","product_price":"49.90","product_images":["%[4]s"]}'
  curl -s %[1]s/products/%[3]d
  curl -s '%[1]s/products?user_id=%[2]d&limit=2'
  curl -s http://%[5]s/metrics | grep ^vitrine_
`, api, user, product, urls[0], s.options.api)
}

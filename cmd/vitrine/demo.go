package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// demoPatience is how long the demonstration waits for its pictures.
const demoPatience = 2 * time.Minute

// demoProduct is what the demonstration reads of a product.
type demoProduct struct {
	ID          int64  `json:"id"`
	ImageStatus string `json:"image_status"`
	Images      []struct {
		SourceURL string `json:"source_url"`
		Status    string `json:"status"`
		Error     *struct {
			Code   string `json:"code"`
			Detail string `json:"detail"`
		} `json:"error"`
		Width      int `json:"width"`
		Height     int `json:"height"`
		Renditions []struct {
			Name   string `json:"name"`
			Format string `json:"format"`
			Width  int    `json:"width"`
			Height int    `json:"height"`
			Bytes  int64  `json:"bytes"`
			URL    string `json:"url"`
		} `json:"renditions"`
	} `json:"images"`
}

// demonstrate posts a product with the sample pictures, waits for them and shows what became of them.
func (s *stack) demonstrate(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, demoPatience)
	defer cancel()
	user, err := s.demoUser(ctx)
	if err != nil {
		return fmt.Errorf("user: %w", err)
	}
	var urls []string
	for _, p := range samples() {
		urls = append(urls, "http://"+s.options.samples+"/"+p.file)
	}
	body, err := json.Marshal(map[string]any{
		"user_id": user, "product_name": "Landscapes", "product_description": "Three pictures to look at",
		"product_images": urls, "product_price": "12.50",
	})
	if err != nil {
		return err
	}
	var p demoProduct
	if err := s.call(ctx, http.MethodPost, "/products", body, &p); err != nil {
		return fmt.Errorf("product: %w", err)
	}
	s.say("posted product %d with %d pictures", p.ID, len(urls))
	if p, err = s.follow(ctx, p.ID); err != nil {
		return err
	}
	s.table(p)
	s.say("the same by hand:\n\n%s", s.curls(user, p.ID, urls))
	return nil
}

// demoUser returns the demonstration's user, who is made at the first start.
func (s *stack) demoUser(ctx context.Context) (int64, error) {
	file := filepath.Join(s.options.data, "demo-user")
	if text, err := os.ReadFile(file); err == nil {
		if id, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil {
			if err := s.call(ctx, http.MethodGet, fmt.Sprintf("/users/%d", id), nil, nil); err == nil {
				return id, nil
			}
		}
	}
	var user struct {
		ID int64 `json:"id"`
	}
	body := fmt.Appendf(nil, `{"name":"Demo","email":"demo-%d@example.com"}`, time.Now().UnixNano())
	if err := s.call(ctx, http.MethodPost, "/users", body, &user); err != nil {
		return 0, err
	}
	return user.ID, os.WriteFile(file, []byte(strconv.FormatInt(user.ID, 10)+"\n"), 0o600)
}

// follow waits until no picture is pending, and says when one changes.
func (s *stack) follow(ctx context.Context, id int64) (demoProduct, error) {
	seen := map[int]string{}
	for {
		var p demoProduct
		if err := s.call(ctx, http.MethodGet, fmt.Sprintf("/products/%d", id), nil, &p); err != nil {
			return p, err
		}
		for i, img := range p.Images {
			if seen[i] != img.Status {
				seen[i] = img.Status
				s.say("  picture %d of %d is %s: %s", i+1, len(p.Images), img.Status, img.SourceURL)
			}
		}
		if p.ImageStatus != "pending" {
			return p, nil
		}
		select {
		case <-ctx.Done():
			return p, errors.New("the pictures are still pending: see the logs")
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// table shows every rendition beside its source.
func (s *stack) table(p demoProduct) {
	w := tabwriter.NewWriter(s.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nSOURCE\tBYTES\tRENDITION\tFORMAT\tSIZE\tBYTES\tSAVED\tURL")
	for i, img := range p.Images {
		source := samples()[i]
		var size int64
		if info, err := os.Stat(filepath.Join(s.options.data, "samples", source.file)); err == nil {
			size = info.Size()
		}
		head := fmt.Sprintf("%s %dx%d\t%d", strings.TrimPrefix(filepath.Ext(source.file), "."), img.Width, img.Height, size)
		if img.Error != nil {
			fmt.Fprintf(w, "%s\t%s: %s\t\t\t\t\t\n", head, img.Error.Code, img.Error.Detail)
		}
		for _, r := range img.Renditions {
			fmt.Fprintf(w, "%s\t%s\t%s\t%dx%d\t%d\t%.1f %%\t%s\n",
				head, r.Name, r.Format, r.Width, r.Height, r.Bytes, 100-100*float64(r.Bytes)/float64(max(size, 1)), r.URL)
			head = "\t"
		}
	}
	_ = w.Flush() // to the terminal: there is nobody to tell
	fmt.Fprintln(s.stdout)
}

// curls are the demonstration's requests, to be repeated.
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

// call sends a request to the API and decodes its answer into out. An answer other than 2xx is an error that quotes it.
func (s *stack) call(ctx context.Context, method, path string, body []byte, out any) error {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+s.options.http+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := s.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, text)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(text, out)
}

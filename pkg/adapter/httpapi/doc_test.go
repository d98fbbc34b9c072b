package httpapi_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"vitrine.io/pkg/adapter/httpapi"
	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
)

// apiDoc returns docs/api.md.
func apiDoc(t testing.TB) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "api.md"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// tableOf returns the first cell's code and the second cell of every row of the table below a heading.
func tableOf(t testing.TB, heading string) map[string]string {
	t.Helper()
	_, section, found := strings.Cut(apiDoc(t), "\n"+heading+"\n")
	if !found {
		t.Fatalf("docs/api.md has no %q", heading)
	}
	section, _, _ = strings.Cut(section, "\n#")
	rows := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| ([^|]*) \\|").FindAllStringSubmatch(section, -1) {
		if _, twice := rows[m[1]]; twice {
			t.Errorf("%s has %s twice", heading, m[1])
		}
		rows[m[1]] = m[2]
	}
	return rows
}

func TestDocument(t *testing.T) {
	t.Parallel()
	t.Run("routes", testDocumentRoutes)
	t.Run("problems", testDocumentProblems)
	t.Run("field_codes", testDocumentFieldCodes)
	t.Run("image_codes", testDocumentImageCodes)
	t.Run("drop_reasons", testDocumentDropReasons)
	t.Run("examples", testDocumentExamples)
}

func testDocumentRoutes(t *testing.T) {
	t.Parallel()
	var documented []string
	for _, m := range regexp.MustCompile(`(?m)^## ([A-Z]+ /.*)$`).FindAllStringSubmatch(apiDoc(t), -1) {
		documented = append(documented, m[1])
	}
	routes := start(t).server.Routes()
	slices.Sort(routes)
	slices.Sort(documented)
	if !slices.Equal(documented, routes) {
		t.Errorf("documented %q, served %q", documented, routes)
	}
}

func testDocumentProblems(t *testing.T) {
	t.Parallel()
	documented := tableOf(t, "## Problems")
	for _, p := range httpapi.Problems() {
		if documented[p.Code] != fmt.Sprint(p.Status) {
			t.Errorf("%s is %d, documented as %q", p.Code, p.Status, documented[p.Code])
		}
		delete(documented, p.Code)
	}
	if len(documented) > 0 {
		t.Errorf("documented, but not in the table: %v", documented)
	}
}

// problemOf checks the reverse, that every code in a response is documented, for every problem in every test.
func testDocumentFieldCodes(t *testing.T) {
	t.Parallel()
	source := sources(t, "../httpapi", "../../domain/catalog", "../postgres")
	for code := range tableOf(t, "### Field codes") {
		if !strings.Contains(source, `"`+code+`"`) {
			t.Errorf("%s is documented, but not in the source", code)
		}
	}
}

func testDocumentImageCodes(t *testing.T) {
	t.Parallel()
	documented := tableOf(t, "### Image codes")
	for code := range media.Codes() {
		if _, ok := documented[string(code)]; !ok {
			t.Errorf("%s is not documented", code)
		}
		delete(documented, string(code))
	}
	if len(documented) > 0 {
		t.Errorf("documented, but not in package media: %v", documented)
	}
}

func testDocumentDropReasons(t *testing.T) {
	t.Parallel()
	var documented []media.Reason
	for reason := range tableOf(t, "### Reasons for dropping") {
		documented = append(documented, media.Reason(reason))
	}
	reasons := media.Reasons()
	slices.Sort(documented)
	slices.Sort(reasons)
	if !slices.Equal(documented, reasons) {
		t.Errorf("documented %q, defined %q", documented, reasons)
	}
}

// sources returns the text of every Go file of the directories, without tests.
func sources(t *testing.T, dirs ...string) string {
	t.Helper()
	var all bytes.Buffer
	for _, dir := range dirs {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %d files, %v", dir, len(files), err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasSuffix(file, "_test.go") {
				all.Write(text)
			}
		}
	}
	return all.String()
}

// example is one curl line of the document and the response below it.
type example struct {
	curl, response string
}

func examples(t *testing.T) []example {
	t.Helper()
	var all []example
	pairs := regexp.MustCompile("(?s)```sh\n(curl .*?)\n```\n```http\n(.*?)\n```")
	for _, m := range pairs.FindAllStringSubmatch(apiDoc(t), -1) {
		all = append(all, example{m[1], m[2]})
	}
	if blocks := strings.Count(apiDoc(t), "```"); blocks != 4*len(all) {
		t.Fatalf("%d code fences for %d examples: a response must follow each curl line", blocks, len(all))
	}
	return all
}

// words splits a command line at blanks, and reads single quotes as a shell does.
func words(line string) []string {
	var all []string
	for _, m := range regexp.MustCompile(`(?s)'([^']*)'|(\S+)`).FindAllStringSubmatch(line, -1) {
		all = append(all, m[1]+m[2])
	}
	return all
}

// run sends the request of a curl line.
func (a *api) run(line string) answer {
	a.t.Helper()
	method, path, body, admin := http.MethodGet, "", "", false
	var headers []string
	args := words(line)[1:]
	for i := 0; i < len(args); i++ {
		switch args[i] {
		case "-i":
		case "-X":
			i++
			method = args[i]
		case "-H":
			i++
			headers = append(headers, args[i])
		case "-d":
			i++
			body = args[i]
			if method == http.MethodGet {
				method = http.MethodPost
			}
		default:
			url, api := strings.CutPrefix(args[i], "http://localhost:8080")
			if url, admin = strings.CutPrefix(url, "http://localhost:9090"); !api && !admin {
				a.t.Fatalf("%s: unknown argument %q", line, args[i])
			}
			path = url
		}
	}
	if admin {
		return callBulk(a.t, documentedBulk{}, method, path, body, headers...)
	}
	return a.do(method, path, body, headers...)
}

func testDocumentExamples(t *testing.T) {
	t.Parallel()
	a := start(t)
	requestID := regexp.MustCompile(`"request_id": ?"[^"]*"`)
	for _, e := range examples(t) {
		if strings.Contains(e.curl, "/products/1") && a.catalog.products[0].Version == 1 {
			a.finishDocumentedImage()
		}
		if strings.Contains(e.curl, "name=lamp") {
			a.product("Table lamp", "9.5")
			a.product("Floor lamp", "50.01")
		}
		got := a.run(e.curl)
		head, body, _ := strings.Cut(e.response, "\n\n")
		lines := strings.Split(head, "\n")
		if want := fmt.Sprintf("HTTP/1.1 %d %s", got.status, http.StatusText(got.status)); lines[0] != want {
			t.Errorf("%s\ngot %s, documented %s", e.curl, want, lines[0])
		}
		for _, line := range lines[1:] {
			name, value, _ := strings.Cut(line, ": ")
			if got.header.Get(name) != value {
				t.Errorf("%s\n%s is %q, documented %q", e.curl, name, got.header.Get(name), value)
			}
		}
		var compact bytes.Buffer
		if body != "" {
			if err := json.Compact(&compact, []byte(body)); err != nil {
				t.Fatalf("%s\ndocumented response: %v", e.curl, err)
			}
		}
		want := requestID.ReplaceAllString(compact.String(), `"request_id":"-"`)
		if text := requestID.ReplaceAllString(got.body, `"request_id":"-"`); text != want {
			t.Errorf("%s\ngot        %s\ndocumented %s", e.curl, text, want)
		}
	}
}

// finishDocumentedImage changes the first product as a worker does.
func (a *api) finishDocumentedImage() {
	a.catalog.mu.Lock()
	defer a.catalog.mu.Unlock()
	p := &a.catalog.products[0]
	const prefix = "products/1/100/1-5f3a9c/"
	img := &p.Images[0]
	img.Status, img.Attempts, img.Width, img.Height = catalog.Ready, 1, 4032, 3024
	img.SourceBytes = 2481553
	img.Placeholder = "1QcSHQRnh493V4dIh4eXh1h4kJUI"
	img.Renditions = []catalog.Rendition{
		{Name: "thumb", Format: pipeline.WebP, Width: 320, Height: 240, Bytes: 8120, Key: prefix + "thumb.webp"},
		{Name: "thumb", Format: pipeline.JPEG, Width: 320, Height: 240, Bytes: 11873, Key: prefix + "thumb.jpg", Default: true},
	}
	p.Compressed = p.CompressedKeys()
	p.Version++
	p.UpdatedAt = epoch.Add(2376544 * time.Microsecond)
}

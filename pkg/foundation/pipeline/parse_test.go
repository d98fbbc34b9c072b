package pipeline_test

import (
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/foundation/pipeline"
)

// wrongFields returns "path: code" of everything that Parse finds wrong with text.
func wrongFields(t *testing.T, text string) []string {
	t.Helper()
	p, err := pipeline.Parse([]byte(text))
	if !fault.Is(err, fault.Invalid) || fault.CodeOf(err) != "invalid_pipeline" {
		t.Fatalf("got %v, want an Invalid with code invalid_pipeline", err)
	}
	if !reflect.DeepEqual(p, pipeline.Pipeline{}) {
		t.Errorf("an error came with half a pipeline: %s", p.Document())
	}
	var got []string
	for _, f := range fault.From(err).Fields {
		got = append(got, f.Path+": "+f.Code)
	}
	return got
}

// with returns a pipeline with one rendition, its formats, and more of the spec.
func with(rendition, formats, more string) string {
	return fmt.Sprintf("apiVersion: vitrine.io/v1alpha1\nkind: ImagePipeline\nmetadata: {name: x}\nspec:\n"+
		"  renditions: [{name: a, %s formats: [%s]}]\n  %s\n", rendition, formats, more)
}

func TestParse(t *testing.T) {
	t.Parallel()
	t.Run("errors_name_field_paths", testParseErrorsNameFieldPaths)
	t.Run("all_errors_are_reported_at_once", testParseAllErrorsAreReportedAtOnce)
	t.Run("error_text_names_path_and_rule", testParseErrorTextNamesPathAndRule)
	t.Run("not_one_document", testParseNotOneDocument)
	t.Run("number_of_errors_is_bounded", testParseNumberOfErrorsIsBounded)
	t.Run("expansion_of_aliases_is_bounded", testParseExpansionOfAliasesIsBounded)
	t.Run("round_trip_of_any_pipeline", testParseRoundTripOfAnyPipeline)
}

func testParseErrorsNameFieldPaths(t *testing.T) {
	t.Parallel()
	const (
		first  = "spec.renditions[0]"
		output = "spec.renditions[0].formats[0]"
	)
	rendition := func(text string) string { return with(text, "{format: jpeg}", "") }
	formats := func(text string) string { return with("width: 9,", text, "") }
	spec := func(text string) string { return with("width: 9,", "{format: jpeg}", text) }
	cases := []struct{ text, want string }{
		{strings.Replace(minimal, "v1alpha1", "v2", 1), "apiVersion: unknown_value"},
		{strings.Replace(minimal, "ImagePipeline", "Pod", 1), "kind: unknown_value"},
		{strings.Replace(minimal, "small", "Small", 1), "metadata.name: bad_form"},
		{strings.Replace(minimal, "small", "-a", 1), "metadata.name: bad_form"},
		{strings.Replace(minimal, "small", "a-", 1), "metadata.name: bad_form"},
		{strings.Replace(minimal, "small", "''", 1), "metadata.name: bad_form"},
		{strings.Replace(minimal, "small", strings.Repeat("a", 64), 1), "metadata.name: bad_form"},
		{strings.Replace(minimal, "small", "yes", 1), "metadata.name: wrong_type"},
		{strings.Replace(minimal, "small", "12", 1), "metadata.name: wrong_type"},
		{strings.Replace(minimal, "name: small", "", 1), "metadata.name: required"},
		{strings.Replace(minimal, "{name: small}", "small", 1), "metadata: wrong_type"},
		{minimal + "extra: 1", "extra: unknown_field"},
		{minimal + "Kind: ImagePipeline", "Kind: unknown_field"},
		{minimal + "12: 1", "12: unknown_field"},
		{minimal + "kind: ImagePipeline", "kind: duplicate_field"},
		{
			strings.Replace(minimal, "renditions:", "renditions: []\n  accepts:", 1),
			"spec.accepts: unknown_field spec.renditions: out_of_range",
		},

		{rendition(""), first + ".width: out_of_range"},
		{rendition("width: 0,"), first + ".width: out_of_range"},
		{rendition("width: 16384,"), first + ".width: out_of_range"},
		{rendition("width: wide,"), first + ".width: wrong_type"},
		{rendition("width: 9.5,"), first + ".width: wrong_type"},
		{rendition("width: 18446744073709551615,"), first + ".width: wrong_type"},
		{rendition("width: null,"), first + ".width: wrong_type"},
		{rendition("width: 9, width: 8,"), first + ".width: duplicate_field"},
		{rendition("width: 9, height: -1,"), first + ".height: out_of_range"},
		{rendition("width: 9, height: 16384,"), first + ".height: out_of_range"},
		{rendition("width: 9, fit: cover,"), first + ".height: required"},
		{rendition("width: 9, fit: contain,"), first + ".height: required"},
		{rendition("width: 9, fit: fill,"), first + ".fit: unknown_value"},
		{rendition("width: 9, fit: '',"), first + ".fit: unknown_value"},
		{rendition("width: 9, background: white,"), first + ".background: bad_form"},
		{rendition("width: 9, background: '#fff',"), first + ".background: bad_form"},
		{rendition("width: 9, background: '#gggggg',"), first + ".background: bad_form"},
		{rendition("width: 9, background: '',"), first + ".background: bad_form"},
		{strings.Replace(rendition("width: 9,"), "name: a", "name: a/b", 1), first + ".name: bad_form"},
		{strings.Replace(rendition("width: 9,"), "name: a", "x: a", 1), first + ".x: unknown_field " + first + ".name: required"},
		{minimal + "  - {name: thumb, width: 9, formats: [{format: webp}]}", "spec.renditions[1].name: not_unique"},
		{strings.Replace(minimal, "- {name", "- 7\n  - {name", 1), "spec.renditions[0]: wrong_type"},

		{formats(""), first + ".formats: out_of_range"},
		{formats("{format: gif}"), output + ".format: unknown_value"},
		{formats("{format: heic}"), output + ".format: unknown_value"},
		{formats("{format: JPEG}"), output + ".format: unknown_value"},
		{formats("{}"), output + ".format: unknown_value"},
		{formats("{format: jpeg}, {format: jpeg}"), first + ".formats[1].format: not_unique"},
		{formats("{format: jpeg, quality: 0}"), output + ".quality: out_of_range"},
		{formats("{format: jpeg, quality: 101}"), output + ".quality: out_of_range"},
		{formats("{format: jpeg, quality: '80'}"), output + ".quality: wrong_type"},
		{formats("{format: jpeg}, {format: png, quality: 80}"), first + ".formats[1].quality: conflict"},
		{formats("{format: png, target: {ssimulacra2: 9, min: 1, max: 2}}, {format: jpeg}"), output + ".target: conflict"},
		{formats("{format: jpeg, quality: 80, target: {ssimulacra2: 70, min: 1, max: 2}}"), output + ".target: conflict"},
		{formats("{format: jpeg, target: null}"), output + ".target: wrong_type"},
		{formats("{format: jpeg, target: {ssimulacra2: 0.5, min: 1, max: 2}}"), output + ".target.ssimulacra2: out_of_range"},
		{formats("{format: jpeg, target: {ssimulacra2: 101, min: 1, max: 2}}"), output + ".target.ssimulacra2: out_of_range"},
		{formats("{format: jpeg, target: {ssimulacra2: .nan, min: 1, max: 2}}"), output + ".target.ssimulacra2: out_of_range"},
		{formats("{format: jpeg, target: {ssimulacra2: high, min: 1, max: 2}}"), output + ".target.ssimulacra2: wrong_type"},
		{formats("{format: jpeg, target: {ssimulacra2: 70, min: 0, max: 2}}"), output + ".target.min: out_of_range"},
		{formats("{format: jpeg, target: {ssimulacra2: 70, min: 1}}"), output + ".target.max: out_of_range"},
		{formats("{format: jpeg, target: {ssimulacra2: 70, min: 3, max: 2}}"), output + ".target.max: out_of_range"},
		{formats("{format: webp}"), "spec.renditions: required"},
		{formats("{format: jpeg, default: true}, {format: webp, default: true}"), first + ".formats[1].default: not_unique"},
		{formats("{format: jpeg, default: maybe}"), output + ".default: wrong_type"},
		{with("width: 15,", "{format: jpeg}, {format: avif}", ""), first + ".width: out_of_range"},
		{with("width: 16, height: 15,", "{format: jpeg}, {format: avif}", ""), first + ".height: out_of_range"},

		{spec("accept: []"), "spec.accept: out_of_range"},
		{spec("accept: jpeg"), "spec.accept: wrong_type"},
		{spec("accept: [jpeg, bmp]"), "spec.accept[1]: unknown_value"},
		{spec("accept: [jpeg, png, jpeg]"), "spec.accept[2]: not_unique"},
		{spec("accept: [" + strings.Repeat("jpeg, ", 257) + "]"), "spec.accept: wrong_type"},
		{spec("limits: null"), "spec.limits: wrong_type"},
		{spec("limits: {maxBytes: 1023}"), "spec.limits.maxBytes: out_of_range"},
		{spec("limits: {maxBytes: 257Mi}"), "spec.limits.maxBytes: out_of_range"},
		{spec("limits: {maxBytes: 25MB}"), "spec.limits.maxBytes: wrong_type"},
		{spec("limits: {maxBytes: [1]}"), "spec.limits.maxBytes: wrong_type"},
		{spec("limits: {maxPixels: 0}"), "spec.limits.maxPixels: out_of_range"},
		{spec("limits: {maxPixels: 1000000001}"), "spec.limits.maxPixels: out_of_range"},
		{spec("limits: {deadline: 30}"), "spec.limits.deadline: wrong_type"},
		{spec("limits: {deadline: 999ms}"), "spec.limits.deadline: out_of_range"},
		{spec("limits: {deadline: 11m}"), "spec.limits.deadline: out_of_range"},
		{spec("fetch: {connectTimeout: 0s}"), "spec.fetch.connectTimeout: out_of_range"},
		{spec("fetch: {headerTimeout: -1s}"), "spec.fetch.headerTimeout: out_of_range"},
		{spec("fetch: {timeout: 9s}"), "spec.fetch.timeout: out_of_range"},
		{spec("fetch: {timeout: 61m}"), "spec.fetch.timeout: out_of_range"},
		{spec("fetch: {headerTimeout: long}"), "spec.fetch.headerTimeout: wrong_type"},
		{spec("fetch: {maxRedirects: 21}"), "spec.fetch.maxRedirects: out_of_range"},
		{spec("fetch: {perHost: 0}"), "spec.fetch.perHost: out_of_range"},
		{spec("fetch: {perHost: 1001}"), "spec.fetch.perHost: out_of_range"},
		{spec("fetch: {allowCIDRs: [10.0.0.1]}"), "spec.fetch.allowCIDRs[0]: bad_form"},
		{spec("fetch: {allowCIDRs: [10.0.0.0/8, 10.0.0.1/8]}"), "spec.fetch.allowCIDRs[1]: bad_form"},
		{spec("fetch: {allowCIDRs: ['::ffff:10.0.0.0/104']}"), "spec.fetch.allowCIDRs[0]: bad_form"},
		{spec("fetch: {allowPorts: [0]}"), "spec.fetch.allowPorts[0]: out_of_range"},
		{spec("fetch: {allowPorts: [80, 65536]}"), "spec.fetch.allowPorts[1]: out_of_range"},
		{spec("retry: {maxAttempts: 0}"), "spec.retry.maxAttempts: out_of_range"},
		{spec("retry: {maxAttempts: 101}"), "spec.retry.maxAttempts: out_of_range"},
		{spec("retry: {backoff: 0s}"), "spec.retry.backoff: out_of_range"},
		{spec("retry: {backoff: 11m}"), "spec.retry.maxBackoff: out_of_range"},
		{spec("retry: {maxAge: 9m}"), "spec.retry.maxAge: out_of_range"},
		{spec("retry: {maxAge: 721h}"), "spec.retry.maxAge: out_of_range"},
	}
	for _, c := range cases {
		t.Run(c.want, func(t *testing.T) {
			t.Parallel()
			if got := wrongFields(t, c.text); strings.Join(got, " ") != c.want {
				t.Errorf("got %q, want %q, of\n%s", got, c.want, c.text)
			}
		})
	}
}

func testParseAllErrorsAreReportedAtOnce(t *testing.T) {
	t.Parallel()
	text := `
apiVersion: v1
kind: ImagePipeline
metadata: {name: x, labels: {}}
spec:
  renditions:
  - {name: a, width: 0, formats: [{format: jpeg, quality: 500}]}
  - {name: a, widht: 9, width: 9, formats: [{format: tiff}]}
  limits: {deadline: soon, maxPixels: 0}
  fetch: {allowCIDRs: [home]}
`
	want := []string{
		"metadata.labels: unknown_field", "spec.renditions[1].widht: unknown_field", "spec.limits.deadline: wrong_type",
		"apiVersion: unknown_value", "spec.renditions[0].width: out_of_range",
		"spec.renditions[0].formats[0].quality: out_of_range",
		"spec.renditions[1].formats[0].format: unknown_value", "spec.renditions[1].name: not_unique",
		"spec.limits.maxPixels: out_of_range", "spec.fetch.allowCIDRs[0]: bad_form",
	}
	if got := wrongFields(t, text); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func testParseErrorTextNamesPathAndRule(t *testing.T) {
	t.Parallel()
	_, err := pipeline.Parse([]byte(with("width: 9,", "{format: jpeg, quality: 0}", "")))
	if want := "spec.renditions[0].formats[0].quality: must be 1 to 100"; !strings.Contains(err.Error(), want) {
		t.Errorf("got %q, want it to contain %q", err, want)
	}
}

func testParseNotOneDocument(t *testing.T) {
	t.Parallel()
	cases := map[string]string{
		"nothing":       "",
		"a comment":     "# nothing\n",
		"two documents": minimal + "\n---\n" + minimal,
		"a list":        "[]",
		"text":          "hello",
		"bad yaml":      "a: [",
		"bad json":      `{"a": `,
		"too large":     minimal + strings.Repeat("#", pipeline.MaxDocument),
	}
	for name, text := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := wrongFields(t, text); len(got) != 0 {
				t.Errorf("got fields %q of a document that has none", got)
			}
		})
	}
}

func testParseNumberOfErrorsIsBounded(t *testing.T) {
	t.Parallel()
	var text strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&text, "field%d: 1\n", i)
	}
	if got, want := len(wrongFields(t, text.String())), 100; got != want {
		t.Errorf("got %d errors, want %d", got, want)
	}
}

func testParseExpansionOfAliasesIsBounded(t *testing.T) {
	t.Parallel()
	text := "f: &f [" + strings.Repeat("{format: jpeg}, ", 200) + "]\nr: &r {formats: *f}\nspec: {renditions: [" +
		strings.Repeat("*r, ", 5000) + "]}"
	start := time.Now()
	wrongFields(t, text)
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
}

// pipelines draws valid pipelines as Parse returns them.
func pipelines(t *rapid.T) pipeline.Pipeline {
	p := pipeline.Default()
	p.Metadata.Name = rapid.StringMatching(`[a-z]([a-z0-9-]{0,20}[a-z0-9])?`).Draw(t, "name")
	names := rapid.SliceOfNDistinct(rapid.StringMatching(`[a-z0-9]{1,9}`), 1, 32, rapid.ID[string]).Draw(t, "renditions")
	p.Spec.Renditions = nil
	for _, name := range names {
		p.Spec.Renditions = append(p.Spec.Renditions, renditions(t, name))
	}
	name, format := p.Spec.DefaultOutput()
	for _, r := range p.Spec.Renditions {
		for j, o := range r.Formats {
			r.Formats[j].Default = r.Name == name && o.Format == format
		}
	}
	all := []pipeline.Format{pipeline.JPEG, pipeline.PNG, pipeline.WebP, pipeline.GIF, pipeline.AVIF, pipeline.HEIC}
	p.Spec.Accept = rapid.SliceOfNDistinct(rapid.SampledFrom(all), 1, 6, rapid.ID[pipeline.Format]).Draw(t, "accept")
	p.Spec.Limits.MaxBytes = pipeline.Bytes(rapid.Int64Range(1<<10, 256<<20).Draw(t, "maxBytes"))
	p.Spec.Limits.Deadline = pipeline.Duration(rapid.Int64Range(int64(time.Second), int64(10*time.Minute)).Draw(t, "deadline"))
	p.Spec.Fetch.AllowPorts = rapid.SliceOfN(rapid.IntRange(1, 65535), 0, 5).Draw(t, "ports")
	p.Spec.Fetch.AllowCIDRs = rapid.SliceOfN(rapid.SampledFrom([]string{"10.0.0.0/8", "::1/128"}), 0, 2).Draw(t, "cidrs")
	p.Spec.Retry.Backoff = pipeline.Duration(rapid.Int64Range(int64(time.Millisecond), int64(time.Minute)).Draw(t, "backoff"))
	return p
}

func renditions(t *rapid.T, name string) pipeline.Rendition {
	r := pipeline.Rendition{
		Name:       name,
		Width:      rapid.IntRange(16, 16383).Draw(t, "width"),
		Height:     rapid.IntRange(16, 16383).Draw(t, "height"),
		Fit:        rapid.SampledFrom([]pipeline.Fit{pipeline.Inside, pipeline.Cover, pipeline.Contain}).Draw(t, "fit"),
		Background: rapid.StringMatching(`#[0-9a-f]{6}`).Draw(t, "background"),
		Formats:    []pipeline.Output{{Format: pipeline.JPEG, Quality: rapid.IntRange(1, 100).Draw(t, "quality")}},
	}
	if rapid.Bool().Draw(t, "png") {
		r.Formats = append(r.Formats, pipeline.Output{Format: pipeline.PNG})
	}
	if rapid.Bool().Draw(t, "avif") {
		low := rapid.IntRange(1, 100).Draw(t, "min")
		r.Formats = append(r.Formats, pipeline.Output{Format: pipeline.AVIF, Target: &pipeline.Target{
			Ssimulacra2: rapid.Float64Range(1, 100).Draw(t, "score"), Min: low, Max: rapid.IntRange(low, 100).Draw(t, "max"),
		}})
	}
	return r
}

func testParseRoundTripOfAnyPipeline(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		want := pipelines(t)
		got, err := pipeline.Parse(want.Document())
		if err != nil {
			t.Fatalf("parse %s: %v", want.Document(), err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("got  %s\nwant %s", got.Document(), want.Document())
		}
		if got.Hash() != want.Hash() {
			t.Fatal("the hash changed")
		}
	})
}

func FuzzParse(f *testing.F) {
	file, err := os.ReadFile(document)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(file)
	f.Add(pipeline.Default().Document())
	f.Add([]byte(minimal))
	f.Add([]byte("a: &a [*a]"))
	f.Add([]byte("<<: {kind: ImagePipeline}\nspec: {renditions: [{formats: [{target: {ssimulacra2: .inf}}]}]}"))
	f.Add([]byte("? {a: b}\n: !!binary aGk=\nspec: !!timestamp 2001-01-01"))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := pipeline.Parse(data)
		if err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Fatalf("got %v, want an Invalid", err)
			}
			return
		}
		again, err := pipeline.Parse(p.Document())
		if err != nil {
			t.Fatalf("parse %s: %v", p.Document(), err)
		}
		if !reflect.DeepEqual(again, p) || again.Hash() != p.Hash() {
			t.Fatalf("got  %s\nwant %s", again.Document(), p.Document())
		}
	})
}

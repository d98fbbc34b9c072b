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

// wrongFields returns "path: code" of each error of Parse.
func wrongFields(t *testing.T, text string) []string {
	t.Helper()
	p, err := pipeline.Parse([]byte(text))
	if !fault.Is(err, fault.Invalid) || fault.CodeOf(err) != "invalid_pipeline" {
		t.Fatalf("got %v, want an Invalid with code invalid_pipeline", err)
	}
	if !reflect.DeepEqual(p, pipeline.Pipeline{}) {
		t.Errorf("the result is not empty after an error: %s", p.Document())
	}
	var got []string
	for _, f := range fault.From(err).Fields {
		got = append(got, f.Path+": "+f.Code)
	}
	return got
}

// with returns a document with one rendition, its formats, and further fields of the spec.
func with(rendition, formats, more string) string {
	return fmt.Sprintf("apiVersion: vitrine.io/v1alpha1\nkind: ImagePipeline\nmetadata: {name: x}\nspec:\n"+
		"  renditions: [{name: a, %s formats: [%s]}]\n  %s\n", rendition, formats, more)
}

func TestParse(t *testing.T) {
	t.Parallel()
	t.Run("errors_name_field_paths", testParseErrorsNameFieldPaths)
	t.Run("all_errors_are_reported_at_once", testParseAllErrorsAreReportedAtOnce)
	t.Run("error_text_names_path_and_rule", testParseErrorTextNamesPathAndRule)
	t.Run("object_of_the_api_server", testParseObjectOfTheAPIServer)
	t.Run("moved_field_names_its_new_place", testParseMovedFieldNamesItsNewPlace)
	t.Run("not_one_document", testParseNotOneDocument)
	t.Run("number_of_errors_is_bounded", testParseNumberOfErrorsIsBounded)
	t.Run("expansion_of_aliases_is_bounded", testParseExpansionOfAliasesIsBounded)
	t.Run("round_trip_of_any_pipeline", testParseRoundTripOfAnyPipeline)
}

// parseError is an invalid document with the "path: code" of its errors, separated by spaces.
type parseError struct{ text, want string }

// firstRendition and firstFormat are paths of the documents that with returns.
const (
	firstRendition = "spec.renditions[0]"
	firstFormat    = "spec.renditions[0].formats[0]"
)

func testParseErrorsNameFieldPaths(t *testing.T) {
	t.Parallel()
	for _, c := range slices.Concat(documentErrors(), renditionErrors(), formatErrors(), specErrors()) {
		t.Run(c.want, func(t *testing.T) {
			t.Parallel()
			if got := wrongFields(t, c.text); strings.Join(got, " ") != c.want {
				t.Errorf("got %q, want %q, of\n%s", got, c.want, c.text)
			}
		})
	}
}

// documentErrors returns documents with errors in the document and its metadata.
func documentErrors() []parseError {
	return []parseError{
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
	}
}

// renditionErrors returns documents with errors in a rendition.
func renditionErrors() []parseError {
	rendition := func(text string) string { return with(text, "{format: jpeg}", "") }
	return []parseError{
		{rendition(""), firstRendition + ".width: out_of_range"},
		{rendition("width: 0,"), firstRendition + ".width: out_of_range"},
		{rendition("width: 16384,"), firstRendition + ".width: out_of_range"},
		{rendition("width: wide,"), firstRendition + ".width: wrong_type"},
		{rendition("width: 9.5,"), firstRendition + ".width: wrong_type"},
		{rendition("width: 18446744073709551615,"), firstRendition + ".width: wrong_type"},
		{rendition("width: null,"), firstRendition + ".width: wrong_type"},
		{rendition("width: 9, width: 8,"), firstRendition + ".width: duplicate_field"},
		{rendition("width: 9, height: -1,"), firstRendition + ".height: out_of_range"},
		{rendition("width: 9, height: 16384,"), firstRendition + ".height: out_of_range"},
		{rendition("width: 9, fit: cover,"), firstRendition + ".height: required"},
		{rendition("width: 9, fit: contain,"), firstRendition + ".height: required"},
		{rendition("width: 9, fit: fill,"), firstRendition + ".fit: unknown_value"},
		{rendition("width: 9, fit: '',"), firstRendition + ".fit: unknown_value"},
		{rendition("width: 9, background: white,"), firstRendition + ".background: bad_form"},
		{rendition("width: 9, background: '#fff',"), firstRendition + ".background: bad_form"},
		{rendition("width: 9, background: '#gggggg',"), firstRendition + ".background: bad_form"},
		{rendition("width: 9, background: '',"), firstRendition + ".background: bad_form"},
		{strings.Replace(rendition("width: 9,"), "name: a", "name: a/b", 1), firstRendition + ".name: bad_form"},
		{strings.Replace(rendition("width: 9,"), "name: a", "x: a", 1), firstRendition + ".x: unknown_field " + firstRendition + ".name: required"},
		{minimal + "  - {name: thumb, width: 9, formats: [{format: webp}]}", "spec.renditions[1].name: not_unique"},
		{strings.Replace(minimal, "- {name", "- 7\n  - {name", 1), "spec.renditions[0]: wrong_type"},
	}
}

// formatErrors returns documents with errors in a rendition's formats.
func formatErrors() []parseError {
	formats := func(text string) string { return with("width: 9,", text, "") }
	return []parseError{
		{formats(""), firstRendition + ".formats: out_of_range"},
		{formats("{format: gif}"), firstFormat + ".format: unknown_value"},
		{formats("{format: heic}"), firstFormat + ".format: unknown_value"},
		{formats("{format: JPEG}"), firstFormat + ".format: unknown_value"},
		{formats("{}"), firstFormat + ".format: unknown_value"},
		{formats("{format: jpeg}, {format: jpeg}"), firstRendition + ".formats[1].format: not_unique"},
		{formats("{format: jpeg, quality: 0}"), firstFormat + ".quality: out_of_range"},
		{formats("{format: jpeg, quality: 101}"), firstFormat + ".quality: out_of_range"},
		{formats("{format: jpeg, quality: '80'}"), firstFormat + ".quality: wrong_type"},
		{formats("{format: jpeg}, {format: png, quality: 80}"), firstRendition + ".formats[1].quality: conflict"},
		{formats("{format: png, target: {ssimulacra2: 9, min: 1, max: 2}}, {format: jpeg}"), firstFormat + ".target: conflict"},
		{formats("{format: jpeg, quality: 80, target: {ssimulacra2: 70, min: 1, max: 2}}"), firstFormat + ".target: conflict"},
		{formats("{format: jpeg, target: null}"), firstFormat + ".target: wrong_type"},
		{formats("{format: jpeg, target: {ssimulacra2: 0.5, min: 1, max: 2}}"), firstFormat + ".target.ssimulacra2: out_of_range"},
		{formats("{format: jpeg, target: {ssimulacra2: 101, min: 1, max: 2}}"), firstFormat + ".target.ssimulacra2: out_of_range"},
		{formats("{format: jpeg, target: {ssimulacra2: .nan, min: 1, max: 2}}"), firstFormat + ".target.ssimulacra2: out_of_range"},
		{formats("{format: jpeg, target: {ssimulacra2: high, min: 1, max: 2}}"), firstFormat + ".target.ssimulacra2: wrong_type"},
		{formats("{format: jpeg, target: {ssimulacra2: 70, min: 0, max: 2}}"), firstFormat + ".target.min: out_of_range"},
		{formats("{format: jpeg, target: {ssimulacra2: 70, min: 1}}"), firstFormat + ".target.max: out_of_range"},
		{formats("{format: jpeg, target: {ssimulacra2: 70, min: 3, max: 2}}"), firstFormat + ".target.max: out_of_range"},
		{formats("{format: webp}"), "spec.renditions: required"},
		{formats("{format: jpeg, default: true}, {format: webp, default: true}"), firstRendition + ".formats[1].default: not_unique"},
		{formats("{format: jpeg, default: maybe}"), firstFormat + ".default: wrong_type"},
		{with("width: 15,", "{format: jpeg}, {format: avif}", ""), firstRendition + ".width: out_of_range"},
		{with("width: 16, height: 15,", "{format: jpeg}, {format: avif}", ""), firstRendition + ".height: out_of_range"},
	}
}

// specErrors returns documents with errors in the other fields of the spec.
func specErrors() []parseError {
	spec := func(text string) string { return with("width: 9,", "{format: jpeg}", text) }
	return []parseError{
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
		{spec("fetch: {allowCIDRs: []}"), "spec.fetch.allowCIDRs: unknown_field"},
		{spec("fetch: {allowPorts: [80]}"), "spec.fetch.allowPorts: unknown_field"},
		{spec("retry: {maxAttempts: 0}"), "spec.retry.maxAttempts: out_of_range"},
		{spec("retry: {maxAttempts: 101}"), "spec.retry.maxAttempts: out_of_range"},
		{spec("retry: {backoff: 0s}"), "spec.retry.backoff: out_of_range"},
		{spec("retry: {backoff: 11m}"), "spec.retry.maxBackoff: out_of_range"},
		{spec("retry: {maxAge: 9m}"), "spec.retry.maxAge: out_of_range"},
		{spec("originals: {keep: 1}"), "spec.originals.keep: wrong_type"},
		{spec("originals: {forget: true}"), "spec.originals.forget: unknown_field"},
		{spec("retry: {maxAge: 721h}"), "spec.retry.maxAge: out_of_range"},
		{spec("backfill: {policy: Always}"), "spec.backfill.policy: unknown_value"},
		{spec("backfill: {policy: ''}"), "spec.backfill.policy: unknown_value"},
		{spec("backfill: {approvedHash: ''}"), "spec.backfill.approvedHash: bad_form"},
		{spec("backfill: {approvedHash: " + strings.Repeat("A", 64) + "}"), "spec.backfill.approvedHash: bad_form"},
		{spec("backfill: {gates: {maxFailedPercent: 101}}"), "spec.backfill.gates.maxFailedPercent: out_of_range"},
		{spec("backfill: {gates: {maxBytesIncreasePercent: .nan}}"), "spec.backfill.gates.maxBytesIncreasePercent: out_of_range"},
		{spec("backfill: {gates: {minScoreDelta: -101}}"), "spec.backfill.gates.minScoreDelta: out_of_range"},
		{spec("backfill: {gates: {minScoreDelta: high}}"), "spec.backfill.gates.minScoreDelta: wrong_type"},
		{spec("backfill: {onMissing: skip}"), "spec.backfill.onMissing: unknown_value"},
		{spec("backfill: {gate: {}}"), "spec.backfill.gate: unknown_field"},
	}
}

func testParseAllErrorsAreReportedAtOnce(t *testing.T) {
	t.Parallel()
	text := `
apiVersion: v1
kind: ImagePipeline
metadata: {name: x, label: {}}
spec:
  renditions:
  - {name: a, width: 0, formats: [{format: jpeg, quality: 500}]}
  - {name: a, widht: 9, width: 9, formats: [{format: tiff}]}
  limits: {deadline: soon, maxPixels: 0}
  fetch: {perHost: 0}
`
	want := []string{
		"metadata.label: unknown_field", "spec.renditions[1].widht: unknown_field", "spec.limits.deadline: wrong_type",
		"apiVersion: unknown_value", "spec.renditions[0].width: out_of_range",
		"spec.renditions[0].formats[0].quality: out_of_range",
		"spec.renditions[1].formats[0].format: unknown_value", "spec.renditions[1].name: not_unique",
		"spec.limits.maxPixels: out_of_range", "spec.fetch.perHost: out_of_range",
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

// The metadata and the status are those that kubectl get -o yaml prints, and need not make sense.
func testParseObjectOfTheAPIServer(t *testing.T) {
	t.Parallel()
	object := strings.Replace(minimal, "metadata: {name: small}", `metadata:
  name: small
  annotations: {kubectl.kubernetes.io/last-applied-configuration: "{}"}
  creationTimestamp: "2026-11-30T08:20:00Z"
  deletionGracePeriodSeconds: 0
  deletionTimestamp: null
  finalizers: [a]
  generateName: s
  generation: 3
  labels: {a: b}
  managedFields: [{manager: kubectl, fieldsV1: {"f:spec": {}}}]
  namespace: shop
  ownerReferences: []
  resourceVersion: "12"
  selfLink: /x
  uid: 0b0a7c4e-6ad2-4f0e-9f0e-1d1c3c8b2f11`, 1) + "status: {observedGeneration: 3, nonsense: [1]}\n"
	if got, want := parse(t, object), parse(t, minimal); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %s\nwant %s", got.Document(), want.Document())
	}
	for _, wrong := range []string{
		strings.Replace(minimal, "{name: small}", "{name: small, nmaespace: x}", 1),
		minimal + "  status: {}\n",
	} {
		if _, err := pipeline.Parse([]byte(wrong)); err == nil {
			t.Errorf("accepted:\n%s", wrong)
		}
	}
}

func testParseMovedFieldNamesItsNewPlace(t *testing.T) {
	t.Parallel()
	_, err := pipeline.Parse([]byte(minimal + "  fetch: {allowCIDRs: [10.0.0.0/8], allowPorts: [80]}\n"))
	for _, want := range []string{
		"spec.fetch.allowCIDRs", "VITRINE_PIPELINE_ALLOW_CIDRS", "pipelineBounds.allowCIDRs",
		"spec.fetch.allowPorts", "VITRINE_PIPELINE_ALLOW_PORTS", "pipelineBounds.allowPorts",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want it to contain %q", err, want)
		}
	}
}

func testParseNotOneDocument(t *testing.T) {
	t.Parallel()
	cases := map[string]string{
		"empty":         "",
		"comment":       "# nothing\n",
		"two_documents": minimal + "\n---\n" + minimal,
		"list":          "[]",
		"text":          "hello",
		"bad_yaml":      "a: [",
		"bad_json":      `{"a": `,
		"too_large":     minimal + strings.Repeat("#", pipeline.MaxDocument),
	}
	for name, text := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := wrongFields(t, text); len(got) != 0 {
				t.Errorf("got fields %q of an error without fields", got)
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
	if elapsed := time.Since(start); elapsed > 5*time.Second {
		t.Errorf("elapsed: %v, want less than 5s", elapsed)
	}
}

// pipelines draws valid and complete pipelines.
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
	p.Spec.Fetch.PerHost = rapid.IntRange(1, 1000).Draw(t, "perHost")
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
		reparsed, err := pipeline.Parse(p.Document())
		if err != nil {
			t.Fatalf("parse %s: %v", p.Document(), err)
		}
		if !reflect.DeepEqual(reparsed, p) || reparsed.Hash() != p.Hash() {
			t.Fatalf("got  %s\nwant %s", reparsed.Document(), p.Document())
		}
	})
}

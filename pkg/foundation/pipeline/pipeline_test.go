package pipeline_test

import (
	"encoding/json"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"vitrine.io/pkg/foundation/pipeline"
)

// document is the pipeline file of the repository, which users copy.
const document = "../../../k8s/imagepipeline.yaml"

// minimal is a pipeline with only the required fields.
const minimal = `
apiVersion: vitrine.io/v1alpha1
kind: ImagePipeline
metadata: {name: small}
spec:
  renditions:
  - {name: thumb, width: 320, formats: [{format: jpeg}]}
`

func parse(t *testing.T, text string) pipeline.Pipeline {
	t.Helper()
	p, err := pipeline.Parse([]byte(text))
	if err != nil {
		t.Fatalf("parse: %v", err)
	}
	return p
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	t.Run("repository_document_equals_default", testDefaultsRepositoryDocumentEqualsDefault)
	t.Run("missing_fields_are_filled_in", testDefaultsMissingFieldsAreFilledIn)
	t.Run("quality_per_format", testDefaultsQualityPerFormat)
	t.Run("explicit_zero_is_kept", testDefaultsExplicitZeroIsKept)
	t.Run("target_replaces_quality", testDefaultsTargetReplacesQuality)
}

func testDefaultsRepositoryDocumentEqualsDefault(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	got := parse(t, string(text))
	if want := pipeline.Default(); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %s\nwant %s", got.Document(), want.Document())
	}
}

func testDefaultsMissingFieldsAreFilledIn(t *testing.T) {
	t.Parallel()
	got, want := parse(t, minimal), pipeline.Default()
	want.Metadata.Name = "small"
	want.Spec.Renditions = []pipeline.Rendition{{
		Name: "thumb", Width: 320, Fit: pipeline.Inside, Background: "#ffffff",
		Formats: []pipeline.Output{{Format: pipeline.JPEG, Quality: 80, Default: true}},
	}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %s\nwant %s", got.Document(), want.Document())
	}
}

func TestJSON(t *testing.T) {
	t.Parallel()
	t.Run("document_is_decoded_by_encoding_json", testJSONDocumentIsDecodedByEncodingJSON)
	t.Run("durations_and_bytes", testJSONDurationsAndBytes)
}

// A client of a custom resource decodes the type with encoding/json, not with Parse.
func testJSONDocumentIsDecodedByEncodingJSON(t *testing.T) {
	t.Parallel()
	const two = "[{format: jpeg}, {format: avif, target: {ssimulacra2: 70.5, min: 40, max: 80}}]"
	want := parse(t, strings.Replace(minimal, "[{format: jpeg}]", two, 1)+"  fetch: {perHost: 7}\n")
	want.Spec.Backfill = pipeline.Backfill{} // no part of a document
	var got pipeline.Pipeline
	decoder := json.NewDecoder(strings.NewReader(string(want.Document())))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&got); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got  %s, %v\nwant %s", got.Document(), err, want.Document())
	}
	if got.Hash() != want.Hash() || pipeline.NewRevision(got).ID() != pipeline.NewRevision(want).ID() {
		t.Error("the decoded pipeline has another hash or ID")
	}
}

func testDefaultsQualityPerFormat(t *testing.T) {
	t.Parallel()
	four := "{format: jpeg}, {format: webp}, {format: avif}, {format: png}"
	p := parse(t, strings.Replace(minimal, "{format: jpeg}", four, 1))
	got := map[pipeline.Format]int{}
	for _, o := range p.Spec.Renditions[0].Formats {
		got[o.Format] = o.Quality
	}
	want := map[pipeline.Format]int{pipeline.JPEG: 80, pipeline.WebP: 79, pipeline.AVIF: 63, pipeline.PNG: 0}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func testDefaultsExplicitZeroIsKept(t *testing.T) {
	t.Parallel()
	p := parse(t, minimal+"  fetch: {maxRedirects: 0}\n")
	want := pipeline.Default().Spec.Fetch
	want.MaxRedirects = 0
	if got := p.Spec.Fetch; !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func testDefaultsTargetReplacesQuality(t *testing.T) {
	t.Parallel()
	p := parse(t, strings.Replace(minimal, "[{format: jpeg}]",
		"[{format: jpeg}, {format: avif, target: {ssimulacra2: 70.5, min: 40, max: 80}}]", 1))
	got := p.Spec.Renditions[0].Formats[1]
	want := pipeline.Output{Format: pipeline.AVIF, Target: &pipeline.Target{Ssimulacra2: 70.5, Min: 40, Max: 80}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestDefaultOutput(t *testing.T) {
	t.Parallel()
	t.Run("chosen_output", testDefaultOutputChosenOutput)
	t.Run("no_jpeg_and_no_mark", testDefaultOutputNoJPEGAndNoMark)
}

func testDefaultOutputChosenOutput(t *testing.T) {
	t.Parallel()
	cases := map[string]struct {
		renditions string
		name       string
		format     pipeline.Format
	}{
		"widest_jpeg": {
			"[{name: a, width: 10, formats: [{format: jpeg}]}, {name: b, width: 20, formats: [{format: webp}, {format: jpeg}]}," +
				" {name: c, width: 30, formats: [{format: webp}]}]", "b", pipeline.JPEG,
		},
		"first_of_equal_widths": {
			"[{name: a, width: 10, formats: [{format: jpeg}]}, {name: b, width: 10, formats: [{format: jpeg}]}]", "a", pipeline.JPEG,
		},
		"marked_output": {
			"[{name: a, width: 10, formats: [{format: webp, default: true}]}, {name: b, width: 20, formats: [{format: jpeg}]}]",
			"a", pipeline.WebP,
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			head, _, _ := strings.Cut(minimal, "spec:")
			p := parse(t, head+"spec: {renditions: "+c.renditions+"}")
			if rendition, format := p.Spec.DefaultOutput(); rendition != c.name || format != c.format {
				t.Errorf("got %s %s, want %s %s", rendition, format, c.name, c.format)
			}
			marked := 0
			for _, r := range p.Spec.Renditions {
				for _, o := range r.Formats {
					if o.Default {
						marked++
					}
				}
			}
			if marked != 1 {
				t.Errorf("%d outputs are marked as the default, want 1", marked)
			}
		})
	}
}

func testDefaultOutputNoJPEGAndNoMark(t *testing.T) {
	t.Parallel()
	if rendition, format := (pipeline.Spec{}).DefaultOutput(); rendition != "" || format != "" {
		t.Errorf("got %q %q, want neither", rendition, format)
	}
}

func TestHash(t *testing.T) {
	t.Parallel()
	t.Run("values_are_pinned", testHashValuesArePinned)
	t.Run("equal_for_equal_meaning", testHashEqualForEqualMeaning)
	t.Run("changes_with_each_image_setting", testHashChangesWithEachImageSetting)
	t.Run("does_not_modify_pipeline", testHashDoesNotModifyPipeline)
	t.Run("backfill_is_no_part_of_it", testHashBackfillIsNoPartOfIt)
}

// An edit of spec.backfill must neither make an image again nor reload a program.
func testHashBackfillIsNoPartOfIt(t *testing.T) {
	t.Parallel()
	approved := strings.Repeat("0a", 32)
	without, with := parse(t, minimal), parse(t, minimal+"  backfill: {policy: Auto, approvedHash: "+approved+
		", gates: {maxFailedPercent: 1, maxBytesIncreasePercent: -2.5, minScoreDelta: 0}, onMissing: Skip}\n")
	b := with.Spec.Backfill
	if b.Policy != pipeline.Auto || b.ApprovedHash != approved || *b.Gates.MaxFailedPercent != 1 ||
		*b.Gates.MaxBytesIncreasePercent != -2.5 || *b.Gates.MinScoreDelta != 0 || b.OnMissing != pipeline.SkipMissing {
		t.Errorf("got %+v", b)
	}
	if b := without.Spec.Backfill; b != (pipeline.Backfill{Policy: pipeline.Propose, OnMissing: pipeline.FetchMissing}) {
		t.Errorf("the default is %+v", b)
	}
	x, y := pipeline.NewRevision(without), pipeline.NewRevision(with)
	if x.ID() != y.ID() || x.Hash() != y.Hash() || string(x.Document()) != string(y.Document()) {
		t.Errorf("got %s %s %s\nwant %s %s %s", y.ID(), y.Hash(), y.Document(), x.ID(), x.Hash(), x.Document())
	}
	if strings.Contains(string(with.Document()), "backfill") {
		t.Errorf("the document is %s", with.Document())
	}
}

// The hash identifies rows of the table pipelines and jobs in Kafka. If it changes, every image seems to be rendered with an
// older pipeline.
func testHashValuesArePinned(t *testing.T) {
	t.Parallel()
	head, _, _ := strings.Cut(minimal, "renditions:")
	for want, text := range map[string]string{
		"4f5edfca41d71e8d9751039c8c971357fa789da8c4044aeae98e6026b3e436fc": string(pipeline.Default().Document()),
		"11e43a710a4799d62515bd04f070c9339254820306fbc5ee48fd1849e4ed6f30": minimal,
		"2cf9799e06e5b4bef74ad3ec827cf91b14662e368daf3df507d13f5574338310": head + "renditions: [{name: a, width: 100, " +
			"height: 50, fit: cover, formats: [{format: avif}, {format: png}, {format: webp, default: true}]}]",
		"0c6061dc2be17e56332658df9f27a599e5ae2930a99237ffa71bdfd8c924ae83": head + "renditions: [{name: a, width: 100, " +
			"height: 50, fit: contain, background: '#FFAA00', " +
			"formats: [{format: jpeg, target: {ssimulacra2: 70.5, min: 40, max: 80}}]}]\n" +
			"  accept: [png, jpeg]\n  limits: {maxBytes: 1500, maxPixels: 7, deadline: 1.5s}",
	} {
		if got := parse(t, text).Hash(); got != want {
			t.Errorf("got %s, want %s, of\n%s", got, want, text)
		}
	}
}

func testHashEqualForEqualMeaning(t *testing.T) {
	t.Parallel()
	want := parse(t, minimal).Hash()
	same := map[string]string{
		"json_with_other_key_order": `{"spec": {"renditions": [{"formats": [{"format": "jpeg"}], "width": 320, "name": "thumb"}]},
			"metadata": {"name": "small"}, "kind": "ImagePipeline", "apiVersion": "vitrine.io/v1alpha1"}`,
		"comments":          "# a comment\n" + minimal + "# another\n",
		"explicit_defaults": strings.Replace(minimal, "{format: jpeg}", "{format: jpeg, quality: 80, default: true}", 1),
		"upper_case_colour": strings.Replace(minimal, "width: 320", "width: 320, fit: inside, background: '#FFFFFF'", 1),
		"order_of_accept":   minimal + "  accept: [heic, png, webp, gif, avif, jpeg]\n",
		"limits_in_bytes":   minimal + "  limits: {maxBytes: 26214400, deadline: 30000ms}\n",
		"another_name":      strings.Replace(minimal, "small", "large", 1),
		"another_fetch":     minimal + "  fetch: {perHost: 1}\n",
		"another_retry":     minimal + "  retry: {maxAttempts: 1}\n",
		"originals":         minimal + "  originals: {keep: true}\n",
	}
	for name, text := range same {
		if got := parse(t, text).Hash(); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
}

func testHashChangesWithEachImageSetting(t *testing.T) {
	t.Parallel()
	seen := map[string]string{parse(t, minimal).Hash(): "minimal"}
	other := map[string]string{
		"width":     strings.Replace(minimal, "320", "321", 1),
		"name":      strings.Replace(minimal, "thumb", "tiny", 1),
		"height":    strings.Replace(minimal, "320", "320, height: 200", 1),
		"fit":       strings.Replace(minimal, "320", "320, height: 200, fit: cover", 1),
		"format":    strings.Replace(minimal, "{format: jpeg}", "{format: webp, default: true}", 1),
		"quality":   strings.Replace(minimal, "format: jpeg", "format: jpeg, quality: 81", 1),
		"target":    strings.Replace(minimal, "format: jpeg", "format: jpeg, target: {ssimulacra2: 70, min: 1, max: 9}", 1),
		"accept":    minimal + "  accept: [jpeg]\n",
		"maxBytes":  minimal + "  limits: {maxBytes: 1Mi}\n",
		"maxPixels": minimal + "  limits: {maxPixels: 1}\n",
		"deadline":  minimal + "  limits: {deadline: 31s}\n",
	}
	for name, text := range other {
		hash := parse(t, text).Hash()
		if before, found := seen[hash]; found {
			t.Errorf("%s and %s have the same hash", name, before)
		}
		seen[hash] = name
	}
}

func testHashDoesNotModifyPipeline(t *testing.T) {
	t.Parallel()
	p := parse(t, minimal+"  accept: [webp, jpeg]\n")
	p.Hash()
	if got, want := p.Spec.Accept, []pipeline.Format{pipeline.WebP, pipeline.JPEG}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func testJSONDurationsAndBytes(t *testing.T) {
	t.Parallel()
	type both struct {
		D pipeline.Duration
		B pipeline.Bytes
	}
	cases := []struct {
		text string
		want both
		out  string
	}{
		{`{"D":"30s","B":"25Mi"}`, both{pipeline.Duration(30 * time.Second), 25 << 20}, `{"D":"30s","B":"25Mi"}`},
		{`{"D":"600s","B":1024}`, both{pipeline.Duration(10 * time.Minute), 1024}, `{"D":"10m","B":"1Ki"}`},
		{`{"D":"24h","B":"1Gi"}`, both{pipeline.Duration(24 * time.Hour), 1 << 30}, `{"D":"24h","B":"1Gi"}`},
		{`{"D":"1h0m5s","B":"1k"}`, both{pipeline.Duration(time.Hour + 5*time.Second), 1000}, `{"D":"1h0m5s","B":"1000"}`},
		{`{"D":"0","B":0}`, both{0, 0}, `{"D":"0s","B":"0"}`},
		{`{"D":"1.5s","B":"3M"}`, both{pipeline.Duration(1500 * time.Millisecond), 3_000_000}, `{"D":"1.5s","B":"3000000"}`},
		{`{"D":"20m","B":"2G"}`, both{pipeline.Duration(20 * time.Minute), 2_000_000_000}, `{"D":"20m","B":"1953125Ki"}`},
	}
	for _, c := range cases {
		var got both
		if err := json.Unmarshal([]byte(c.text), &got); err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		if got != c.want {
			t.Errorf("%s: got %v, want %v", c.text, got, c.want)
		}
		if out, err := json.Marshal(got); err != nil || string(out) != c.out {
			t.Errorf("%s: got %s (%v), want %s", c.text, out, err, c.out)
		}
	}
	wrong := []string{
		`{"D":30}`, `{"D":"30"}`, `{"D":"soon"}`, `{"B":"25MB"}`, `{"B":"Mi"}`, `{"B":1.5}`, `{"B":"9223372036854775807Ki"}`,
		`{"D":"000000000000000000000000000000030s"}`, `{"B":"0000000000000000000000000000000001024"}`,
		`{"B":"-9223372036854775807Ki"}`, `{"B":"\ud800Ki"}`, `{"B":"1 Mi"}`,
	}
	for _, text := range wrong {
		var got both
		if err := json.Unmarshal([]byte(text), &got); err == nil {
			t.Errorf("%s: got %v, want an error", text, got)
		}
	}
}

func TestDuration(t *testing.T) {
	t.Parallel()
	if got, want := pipeline.Duration(time.Second).D(), time.Second; got != want {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestFormat(t *testing.T) {
	t.Parallel()
	for format, want := range map[pipeline.Format][2]string{
		pipeline.JPEG: {"image/jpeg", "jpg"}, pipeline.WebP: {"image/webp", "webp"}, pipeline.AVIF: {"image/avif", "avif"},
	} {
		if got := [2]string{format.ContentType(), format.Extension()}; got != want {
			t.Errorf("got %v, want %v", got, want)
		}
	}
}

package controller_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"vitrine.io/pkg/foundation/pipeline"
)

// onlyParse are valid objects for the API server that Parse refuses, as docs/pipelines.md lists them.
var onlyParse = map[string]string{
	"range_of_a_duration":       document("x", "limits: {deadline: 11m}"),
	"range_of_a_size":           document("x", "limits: {maxBytes: 257Mi}"),
	"timeout_below_headers":     document("x", "fetch: {headerTimeout: 20s, timeout: 10s}"),
	"timeout_below_default":     document("x", "fetch: {timeout: 9s}"),
	"max_backoff_below_backoff": document("x", "retry: {backoff: 2h, maxBackoff: 1h}"),
	"max_age_below_max_backoff": document("x", "retry: {maxAge: 1m}"),
	"fraction_in_a_whole":       strings.Replace(document("x", ""), "320", "320.0", 1),
}

func TestSchema(t *testing.T) {
	t.Parallel()
	t.Run("never_stricter_than_parse", testSchemaNeverStricterThanParse)
	t.Run("only_parse_refuses", testSchemaOnlyParseRefuses)
	t.Run("sample_is_accepted", testSchemaSampleIsAccepted)
	t.Run("printed_object_is_a_valid_file", testSchemaPrintedObjectIsAValidFile)
	t.Run("hash_survives_a_newer_definition", testSchemaHashSurvivesANewerDefinition)
}

// dryRun returns the API server's verdict about a document.
func (c *cluster) dryRun(document any) error {
	c.t.Helper()
	text, err := json.Marshal(document)
	c.must(err)
	obj := &unstructured.Unstructured{}
	c.must(json.Unmarshal(text, &obj.Object))
	obj.SetNamespace(c.namespace)
	return c.admin.Create(c.t.Context(), obj, client.DryRunAll, client.FieldValidation("Strict"))
}

// 500 specs, most with one or two values at or beyond a limit. What Parse accepts, the API server has to accept. Of what
// only Parse refuses, each has to be listed.
func testSchemaNeverStricterThanParse(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	random := rand.New(rand.NewPCG(14, 500))
	count := map[string]int{}
	for i := range 500 {
		document := randomDocument(random)
		text, err := json.Marshal(document)
		c.must(err)
		_, refused := pipeline.Parse(text)
		verdict := c.dryRun(document)
		switch {
		case refused == nil && verdict != nil:
			t.Errorf("%d: the API server refuses what Parse accepts: %v\n%s", i, verdict, text)
		case verdict != nil && !apierrors.IsInvalid(verdict) && !apierrors.IsBadRequest(verdict):
			t.Fatalf("%d: %v\n%s", i, verdict, text)
		case refused != nil && verdict == nil && !isListed(refused.Error()):
			t.Errorf("%d: only Parse refuses this, and docs/pipelines.md does not list it: %v\n%s", i, refused, text)
		}
		count[fmt.Sprint(refused == nil, verdict == nil)]++
	}
	t.Logf("Parse and the API server: %v", count)
	if count["true true"] < 50 || count["false false"] < 50 || count["false true"] < 10 {
		t.Errorf("the specs are not mixed: %v", count)
	}
}

// isListed reports whether an error of Parse is one of those that docs/pipelines.md lists.
func isListed(refusal string) bool {
	for _, field := range []string{
		"spec.limits.deadline", "spec.limits.maxBytes", "spec.fetch.connectTimeout", "spec.fetch.headerTimeout",
		"spec.fetch.timeout", "spec.retry.backoff", "spec.retry.maxBackoff", "spec.retry.maxAge",
	} {
		if strings.Contains(refusal, field) {
			return true
		}
	}
	return false
}

type object = map[string]any

// pick returns one of the values; half of the time the first.
func pick(r *rand.Rand, values ...any) any {
	if r.IntN(2) == 0 {
		return values[0]
	}
	return values[r.IntN(len(values))]
}

// maybe sets a field to one of the values, or leaves it out.
func maybe(r *rand.Rand, o object, field string, values ...any) {
	if r.IntN(3) == 0 {
		o[field] = pick(r, values...)
	}
}

// randomDocument returns a pipeline whose values are mostly valid, and often at a limit.
func randomDocument(r *rand.Rand) object {
	spec := object{"renditions": randomRenditions(r)}
	maybe(r, spec, "accept", []any{"jpeg", "heic"}, []any{"png"}, []any{}, []any{"jpeg", "jpeg"}, []any{"bmp"})
	limits, fetch, retry := object{}, object{}, object{}
	maybe(r, limits, "maxBytes", "25Mi", 1024, "1048576", "+1Mi", 268435456, "256Mi", "257Mi", 1023, "25MB", "-1", "")
	maybe(r, limits, "maxPixels", 50_000_000, 1, 1_000_000_000, 0, 1_000_000_001, "9")
	maybe(r, limits, "deadline", "30s", "1.5s", "+1m", "1m0.5s", "500000us", "1000000µs", "10m", ".5m", "10m1s", "0", "30",
		"soon", "00000000000000000000000000000030s")
	for _, field := range []string{"connectTimeout", "headerTimeout", "timeout"} {
		maybe(r, fetch, field, "30s", "1ms", "1h", "61m", "-1s", 30)
	}
	maybe(r, fetch, "maxRedirects", 5, 0, 20, 21, -1)
	maybe(r, fetch, "perHost", 4, 1, 1000, 0, 1001)
	maybe(r, retry, "maxAttempts", 5, 1, 100, 0, 101, true)
	maybe(r, retry, "backoff", "5s", "1ms", "720h", "721h")
	maybe(r, retry, "maxBackoff", "10m", "1h", "720h")
	maybe(r, retry, "maxAge", "24h", "720h", "1s")
	backfill := object{}
	maybe(r, backfill, "policy", "Propose", "Never", "Auto", "Always", "")
	maybe(r, backfill, "approvedHash", strings.Repeat("0f", 32), strings.Repeat("0", 63), strings.Repeat("F", 64), "")
	maybe(r, backfill, "onMissing", "Fetch", "Skip", "skip", "")
	maybe(r, backfill, "gates", object{}, object{"maxFailedPercent": 0.5, "minScoreDelta": -100},
		object{"maxBytesIncreasePercent": 10000}, object{"maxFailedPercent": 100.5},
		object{"maxFailedPercent": -1}, object{"minScoreDelta": 101},
		object{"maxBytesIncreasePercent": "5"}, object{"maxBytesIncreasePercent": -100.5})
	originals := object{}
	maybe(r, originals, "keep", true, false, "true", 1)
	for name, section := range map[string]object{
		"backfill": backfill, "limits": limits, "fetch": fetch, "retry": retry, "originals": originals,
	} {
		if len(section) > 0 || r.IntN(8) == 0 {
			spec[name] = section
		}
	}
	return object{
		"apiVersion": pipeline.APIVersion, "kind": pipeline.Kind, "spec": spec,
		"metadata": object{"name": pick(r, "default", "a", "0", strings.Repeat("a", 63), strings.Repeat("a", 64), "a.b")},
	}
}

func randomRenditions(r *rand.Rand) []any {
	count := pick(r, 1, 2, 3, 32, 33, 0).(int)
	list := make([]any, 0, count)
	for i := range count {
		rendition := object{
			"name": fmt.Sprint("r", i), "width": pick(r, 320, 320, 16, 1, 16383, 320, 320), "formats": randomFormats(r),
		}
		if r.IntN(40) == 0 {
			rendition["name"] = pick(r, "r0", "R", "-a", "", strings.Repeat("b", 64))
		}
		if r.IntN(40) == 0 {
			rendition["width"] = pick(r, 0, 16384, "320", 15)
		}
		maybe(r, rendition, "height", 200, 0, 16, 16383)
		if rendition["height"] != nil && rendition["height"] != 0 {
			maybe(r, rendition, "fit", "inside", "cover", "contain")
		} else if r.IntN(40) == 0 {
			rendition["fit"] = pick(r, "cover", "contain", "fill", "")
		}
		maybe(r, rendition, "background", "#ffffff", "#FFAA00", "#ffffff", "#ffffff", "#ffffff", "#ffffff", "#fff")
		list = append(list, rendition)
	}
	if r.IntN(4) == 0 && count > 0 {
		format := list[0].(object)["formats"].([]any)
		if len(format) > 0 {
			format[0].(object)["default"] = pick(r, true, false)
		}
	}
	return list
}

func randomFormats(r *rand.Rand) []any {
	all := []string{"jpeg", "webp", "avif", "png"}
	chosen := slices.Clone(all[:1+r.IntN(2)])
	if r.IntN(10) == 0 {
		chosen = all
	}
	list := make([]any, 0, 5)
	for _, format := range chosen {
		output := object{"format": format}
		switch r.IntN(5) {
		case 0:
			if format != "png" || r.IntN(10) == 0 {
				output["quality"] = pick(r, 80, 1, 100)
			}
		case 1:
			if format != "png" || r.IntN(10) == 0 {
				output["target"] = object{"ssimulacra2": pick(r, 70, 70.5, 1, 100), "min": 1, "max": pick(r, 80, 1, 100)}
			}
		}
		list = append(list, output)
	}
	switch r.IntN(60) {
	case 0:
		list = append(list, object{"format": pick(r, "jpeg", "gif", "JPEG")})
	case 1:
		list = []any{}
	case 2:
		list[0].(object)["quality"] = pick(r, 0, 101, "80")
	case 3:
		list[0].(object)["target"] = object{"ssimulacra2": pick(r, 0.5, 101), "min": 1, "max": 2}
	case 4:
		list[0].(object)["target"] = object{"ssimulacra2": 70, "min": 3, "max": 2}
	case 5:
		list = []any{object{"format": "webp"}}
	}
	return list
}

func testSchemaOnlyParseRefuses(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	for name, text := range onlyParse {
		t.Run(name, func(t *testing.T) {
			if _, err := pipeline.Parse([]byte(text)); err == nil {
				t.Errorf("Parse accepts\n%s", text)
			}
			if err := c.dryRun(c.decode([]byte(text)).Object); err != nil {
				t.Errorf("the API server refuses it, too: %v\n%s", err, text)
			}
		})
	}
}

func testSchemaSampleIsAccepted(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	for _, text := range []string{read(t, sample), string(pipeline.Default().Document())} {
		if err := c.dryRun(c.decode([]byte(text)).Object); err != nil {
			t.Errorf("%v\n%s", err, text)
		}
	}
}

func testSchemaPrintedObjectIsAValidFile(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	text := read(t, sample)
	c.set(text)
	obj, _ := c.get("default")
	printed, err := json.Marshal(obj.Object)
	c.must(err)
	p, err := pipeline.Parse(printed)
	if err != nil || pipeline.NewRevision(p).ID() != revisionOf(t, text).ID() {
		t.Errorf("got %v of\n%s", err, printed)
	}
}

// An upgrade of the definitions and its rollback must not change what is stored: every image would be made again.
func testSchemaHashSurvivesANewerDefinition(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	text := document("default", "accept: [png, jpeg]\n  limits: {maxBytes: 1500}")
	want := revisionOf(t, text).Hash()
	c.set(text)
	hash := func() string {
		t.Helper()
		obj, _ := c.get("default")
		printed, err := json.Marshal(obj.Object)
		c.must(err)
		p, err := pipeline.Parse(printed)
		c.must(err)
		return p.Hash()
	}
	installCRD.Lock()
	defer installCRD.Unlock()
	newer := c.decode([]byte(read(t, crdFile)))
	spec := newer.Object["spec"].(object)["versions"].([]any)[0].(object)["schema"].(object)["openAPIV3Schema"].(object)
	properties := spec["properties"].(object)["spec"].(object)["properties"].(object)
	properties["watermark"] = object{"type": "object", "properties": object{"text": object{"type": "string"}}}
	c.apply(newer)
	if got := hash(); got != want {
		t.Errorf("with the newer definition: got %s, want %s", got, want)
	}
	c.eventually("the newer definition is served", func() error {
		with := c.decode([]byte(document("future", "")))
		with.Object["spec"].(object)["watermark"] = object{"text": "x"}
		return c.dryRun(with.Object)
	})
	c.apply(c.decode([]byte(read(t, crdFile))))
	if got := hash(); got != want {
		t.Errorf("after the rollback: got %s, want %s", got, want)
	}
}

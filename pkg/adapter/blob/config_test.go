package blob_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"vitrine.io/pkg/adapter/blob"
	"vitrine.io/pkg/foundation/pipeline"
)

func TestConfigValidate(t *testing.T) {
	t.Parallel()
	t.Run("valid_config_has_no_error", testConfigValidateValidConfigHasNoError)
	t.Run("invalid_value_is_named", testConfigValidateInvalidValueIsNamed)
}

func testConfigValidateValidConfigHasNoError(t *testing.T) {
	t.Parallel()
	aws := settings("", "images")
	aws.AccessKey, aws.SecretKey = "", ""
	for _, cfg := range []blob.Config{aws, settings("https://minio:9000/", "a-1")} {
		if wrong := cfg.Validate(); wrong != nil {
			t.Errorf("got %v, want no error", wrong)
		}
	}
}

func testConfigValidateInvalidValueIsNamed(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		edit func(*blob.Config)
	}{
		{"ENDPOINT", func(c *blob.Config) { c.Endpoint = "minio:9000" }},
		{"ENDPOINT", func(c *blob.Config) { c.Endpoint = "http://user:secret@minio" }},
		{"ENDPOINT", func(c *blob.Config) { c.Endpoint = "http://" }},
		{"CA_FILE", func(c *blob.Config) { c.CAFile = "/etc/ca.crt" }}, // a CA file is not valid with an http endpoint
		{"PUBLIC_URL", func(c *blob.Config) { c.PublicURL = "/media" }},
		{"PUBLIC_URL", func(c *blob.Config) { c.PublicURL = "https://cdn/x?y=1" }},
		{"REGION", func(c *blob.Config) { c.Region = "" }},
		{"BUCKET", func(c *blob.Config) { c.Bucket = "Images" }},
		{"BUCKET", func(c *blob.Config) { c.Bucket = "ab" }},
		{"BUCKET", func(c *blob.Config) { c.Bucket = "a/../b" }},
		{"ORIGINALS_BUCKET", func(c *blob.Config) { c.OriginalsBucket = "A" }},
		{"ORIGINALS_BUCKET", func(c *blob.Config) { c.OriginalsBucket = c.Bucket }},
		{"SECRET_KEY", func(c *blob.Config) { c.SecretKey = "" }},
		{"SECRET_KEY", func(c *blob.Config) { c.AccessKey = "" }},
		{"PUBLIC_READ", func(c *blob.Config) { c.PublicRead = true }},
		{"ATTEMPT_TIMEOUT", func(c *blob.Config) { c.AttemptTimeout = 0 }},
		{"ATTEMPT_TIMEOUT", func(c *blob.Config) { c.AttemptTimeout = time.Hour }},
		{"MAX_ATTEMPTS", func(c *blob.Config) { c.MaxAttempts = 0 }},
		{"MAX_ATTEMPTS", func(c *blob.Config) { c.MaxAttempts = 11 }},
	} {
		cfg := settings("http://here:1", "images")
		test.edit(&cfg)
		wrong := cfg.Validate()
		if len(wrong) != 1 || wrong[0].Path != test.name || wrong[0].Code == "" || wrong[0].Detail == "" {
			t.Errorf("%s: got %+v, want exactly this one", test.name, wrong)
		}
	}
	all := blob.Config{Endpoint: "x", PublicURL: "x", SecretKey: "x", PublicRead: true}.Validate()
	names := make([]string, 0, len(all))
	for _, field := range all {
		names = append(names, field.Path)
	}
	want := []string{
		"ENDPOINT", "PUBLIC_URL", "REGION", "BUCKET", "SECRET_KEY", "PUBLIC_READ", "ATTEMPT_TIMEOUT", "MAX_ATTEMPTS",
	}
	if !slices.Equal(names, want) {
		t.Errorf("all at once: got %v, want %v", names, want)
	}
}

func TestConfigCheckBounds(t *testing.T) {
	t.Parallel()
	cfg := settings("http://here:1", "images")
	bounds := pipeline.DefaultBounds()
	if err := cfg.CheckBounds(bounds); err != nil {
		t.Errorf("without originals: got %v", err)
	}
	bounds.AllowOriginals = true
	if err := cfg.CheckBounds(bounds); err == nil || !strings.Contains(err.Error(), "VITRINE_S3_ORIGINALS_BUCKET") {
		t.Errorf("without a bucket: got %v, want the name of the setting", err)
	}
	if cfg.OriginalsBucket = "originals"; cfg.CheckBounds(bounds) != nil {
		t.Errorf("with a bucket: got %v", cfg.CheckBounds(bounds))
	}
}

func TestConfigPublic(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		cfg  blob.Config
		want string
	}{
		{"CDN", blob.Config{PublicURL: "https://cdn.shop/m", Endpoint: "http://minio:9000", Bucket: "b"}, "https://cdn.shop/m/"},
		{"CDN with a slash", blob.Config{PublicURL: "https://cdn.shop/"}, "https://cdn.shop/"},
		{"MinIO", blob.Config{Endpoint: "http://minio:9000", Bucket: "b", PathStyle: true}, "http://minio:9000/b/"},
		{"host per bucket", blob.Config{Endpoint: "https://s3.shop/", Bucket: "b"}, "https://b.s3.shop/"},
		{"AWS", blob.Config{Bucket: "b", Region: "eu-west-1", PathStyle: true}, "https://b.s3.eu-west-1.amazonaws.com/"},
	} {
		if got := test.cfg.Public(); got != test.want {
			t.Errorf("%s: got %s, want %s", test.name, got, test.want)
		}
	}
}

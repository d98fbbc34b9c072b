package blob

import (
	"crypto/x509"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"time"

	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/foundation/pipeline"
	"vitrine.io/pkg/foundation/tlsroots"
)

// Config is where the bucket is and how to connect to it.
type Config struct {
	Endpoint  string `env:"ENDPOINT" desc:"URL of the store; empty is AWS in REGION"`
	Region    string `env:"REGION" envDefault:"us-east-1" desc:"region of the bucket; most stores that are not AWS accept any"`
	Bucket    string `env:"BUCKET" envDefault:"vitrine" desc:"name of the bucket"`
	AccessKey string `env:"ACCESS_KEY" desc:"access key id; empty is the SDK's usual chain (role, profile, AWS_*)"`
	SecretKey string `env:"SECRET_KEY" secret:"true" desc:"secret of the access key"`
	PathStyle bool   `env:"PATH_STYLE" envDefault:"true" desc:"the name of the bucket is in the path, not in the host name"`
	PublicURL string `env:"PUBLIC_URL" desc:"where clients fetch objects (bucket, ingress or CDN); empty is ENDPOINT/BUCKET"`

	OriginalsBucket string `env:"ORIGINALS_BUCKET" desc:"name of the bucket for the originals of pipelines that keep them; private"`

	CAFile string `env:"CA_FILE" desc:"PEM file of the CA of an https ENDPOINT; empty: the system's roots; read at the start"`

	CreateBucket bool `env:"CREATE_BUCKET" envDefault:"false" desc:"setup creates the bucket if it is missing"`
	PublicRead   bool `env:"PUBLIC_READ" envDefault:"false" desc:"setup allows anonymous reads, but no listing, of its objects"`

	AttemptTimeout time.Duration `env:"ATTEMPT_TIMEOUT" envDefault:"30s" desc:"limit for one attempt, including its body"`
	MaxAttempts    int           `env:"MAX_ATTEMPTS" envDefault:"3" desc:"attempts of one operation, 1 to 10"`
}

// maxAttempts is the maximum of MaxAttempts. It is low, because the callers retry failed operations with longer pauses.
const maxAttempts = 10

// bucketName matches the names that S3 allows, except those with dots, which break TLS.
var bucketName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$`)

// Validate returns every invalid setting, by the name of its variable. It reads the CA file.
func (c Config) Validate() []fault.Field {
	var check fault.Checker
	c.validateURLs(&check)
	check.Check(c.Region != "", "REGION", "required", "needs a region")
	check.Check(bucketName.MatchString(c.Bucket), "BUCKET", "bad_name",
		"needs 3 to 63 lower-case letters, digits and inner hyphens")
	check.Check(c.OriginalsBucket == "" || bucketName.MatchString(c.OriginalsBucket), "ORIGINALS_BUCKET", "bad_name",
		"needs 3 to 63 lower-case letters, digits and inner hyphens")
	check.Check(c.OriginalsBucket == "" || c.OriginalsBucket != c.Bucket, "ORIGINALS_BUCKET", "not_private",
		"must not be BUCKET, whose objects everyone may read")
	check.Check((c.AccessKey == "") == (c.SecretKey == ""), "SECRET_KEY", "required",
		"ACCESS_KEY and SECRET_KEY go together")
	check.Check(!c.PublicRead || c.CreateBucket, "PUBLIC_READ", "needs_create",
		"applies only to the bucket that CREATE_BUCKET creates")
	check.Range(c.AttemptTimeout >= 100*time.Millisecond && c.AttemptTimeout <= 10*time.Minute, "ATTEMPT_TIMEOUT",
		"from 100ms to 10m")
	check.Range(c.MaxAttempts >= 1 && c.MaxAttempts <= maxAttempts, "MAX_ATTEMPTS", "from 1 to 10")
	return check.Fields()
}

func (c Config) validateURLs(check *fault.Checker) {
	check.Check(c.Endpoint == "" || webURL(c.Endpoint), "ENDPOINT", "bad_url", "needs an http or https URL")
	if c.CAFile != "" && strings.HasPrefix(c.Endpoint, "http://") {
		check.Add("CA_FILE", "not_https", "has no effect: ENDPOINT is not https")
	} else if _, err := c.authorities(); err != nil {
		check.Add("CA_FILE", "bad_file", "%v", err)
	}
	check.Check(c.PublicURL == "" || webURL(c.PublicURL), "PUBLIC_URL", "bad_url", "needs an http or https URL")
}

// authorities reads the CA file and returns the CA certificates for the store. nil means the system's roots.
func (c Config) authorities() (*x509.CertPool, error) {
	pool, err := tlsroots.Pool(c.CAFile)
	if err != nil {
		return nil, fmt.Errorf("read the store's CA file: %w", err)
	}
	return pool, nil
}

// CheckBounds returns a fault.Invalid if pipelines may keep originals and no bucket for them is configured.
func (c Config) CheckBounds(b pipeline.Bounds) error {
	if !b.AllowOriginals || c.OriginalsBucket != "" {
		return nil
	}
	return fault.InvalidFields([]fault.Field{{
		Path: "VITRINE_S3_ORIGINALS_BUCKET", Code: "required",
		Detail: "needs a name, since VITRINE_PIPELINE_ALLOW_ORIGINALS is set",
	}})
}

func webURL(text string) bool {
	u, err := url.Parse(text)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && u.User == nil &&
		u.RawQuery == "" && u.Fragment == ""
}

// Public returns the base URL of the objects for clients. It ends in a slash; an object's URL is this URL followed by the
// key.
func (c Config) Public() string {
	switch {
	case c.PublicURL != "":
		return strings.TrimRight(c.PublicURL, "/") + "/"
	case c.Endpoint == "":
		return "https://" + c.Bucket + ".s3." + c.Region + ".amazonaws.com/"
	case c.PathStyle:
		return strings.TrimRight(c.Endpoint, "/") + "/" + c.Bucket + "/"
	default:
		return strings.Replace(strings.TrimRight(c.Endpoint, "/"), "://", "://"+c.Bucket+".", 1) + "/"
	}
}

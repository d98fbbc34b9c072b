package blob

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/logging"
	"go.uber.org/zap"
)

const (
	idleConns  = 64 // idle connections to the store; a worker stores several objects of each image at a time
	maxBackoff = 900 * time.Millisecond

	maxRedirects = 10 // the default of net/http
)

// newClient returns the SDK's client and its HTTP client. With keys in cfg it reads neither the environment nor files of the
// SDK. Without, it uses the SDK's default credential chain, which sends no request before the first operation.
func newClient(cfg Config, log *zap.Logger) (*s3.Client, *http.Client, error) {
	// The SDK's transport is used in another http.Client, because the SDK's client returns only copies of its transport,
	// so that its connections could not be closed.
	transport := awshttp.NewBuildableClient().GetTransport()
	transport.MaxIdleConnsPerHost = idleConns
	pool, err := cfg.authorities()
	if err != nil {
		return nil, nil, err
	}
	if pool != nil {
		transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool}
	}
	httpClient := &http.Client{Transport: transport, Timeout: cfg.AttemptTimeout, CheckRedirect: sameMethod}
	base := aws.Config{
		Region:      cfg.Region,
		Credentials: credentials.NewStaticCredentialsProvider(cfg.AccessKey, cfg.SecretKey, ""),
	}
	if cfg.AccessKey == "" {
		base, err = config.LoadDefaultConfig(context.Background(), config.WithRegion(cfg.Region))
		if err != nil {
			return nil, nil, fmt.Errorf("read AWS configuration: %w", err)
		}
	}
	base.HTTPClient = httpClient
	base.Logger = bridge(log.Named("s3"))
	base.ClientLogMode = aws.LogRetries
	base.Retryer = func() aws.Retryer {
		return retry.NewStandard(func(o *retry.StandardOptions) {
			o.MaxAttempts = cfg.MaxAttempts
			o.MaxBackoff = maxBackoff
		})
	}
	client := s3.NewFromConfig(base, func(o *s3.Options) {
		o.UsePathStyle = cfg.PathStyle
		// The SDK sends its checksums in a trailer of a chunked body, which many stores other than AWS do not support. The
		// signature covers the SHA-256 of the payload anyway.
		o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
		o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
		if cfg.Endpoint != "" {
			o.BaseEndpoint = aws.String(strings.TrimRight(cfg.Endpoint, "/"))
		}
	})
	return client, httpClient, nil
}

// bridge passes the log lines of the SDK to log. They are about retries.
func bridge(log *zap.Logger) logging.Logger {
	return logging.LoggerFunc(func(class logging.Classification, format string, args ...any) {
		if class == logging.Warn {
			log.Warn(fmt.Sprintf(format, args...))
			return
		}
		log.Debug(fmt.Sprintf(format, args...))
	})
}

// sameMethod follows only redirects that keep the method, as the SDK's client does, and sends no session token to other
// hosts.
func sameMethod(r *http.Request, via []*http.Request) error {
	switch r.Response.StatusCode {
	case http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		if len(via) > 0 && via[len(via)-1].URL.Host != r.URL.Host {
			r.Header.Del("X-Amz-Security-Token")
		}
		if len(via) < maxRedirects {
			return nil
		}
	}
	return http.ErrUseLastResponse
}

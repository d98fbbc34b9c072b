package main

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"vitrine.io/pkg/foundation/backoff"
)

func (c console) imagesCommand() *cobra.Command {
	group := &cobra.Command{Use: "images", Short: "Reprocess many images"}
	group.AddCommand(c.reprocessCommand())
	return group
}

// reprocessOptions are the flags of images reprocess.
type reprocessOptions struct {
	admin     string
	request   reprocessJSON
	olderThan time.Duration
	all       bool
	timeout   time.Duration // of one page, with retries
}

// reprocessJSON is the request.
type reprocessJSON struct {
	Status       string `json:"status,omitempty"`
	Code         string `json:"code,omitempty"`
	OlderThan    string `json:"older_than,omitempty"`
	PipelineHash string `json:"pipeline_hash,omitempty"`
	All          bool   `json:"all,omitempty"` // every image, without conditions
	Limit        int    `json:"limit"`
	After        int64  `json:"after,omitempty"`
}

// reprocessedJSON is the response.
type reprocessedJSON struct {
	Requested int     `json:"requested"`
	Skipped   int     `json:"skipped"`
	Next      int64   `json:"next"` // 0 on the last page
	Spread    float64 `json:"spread_seconds"`
}

func (c console) reprocessCommand() *cobra.Command {
	var o reprocessOptions
	cmd := &cobra.Command{
		Use: "reprocess", Args: cobra.NoArgs,
		Short: "Request images again by status, error, age or pipeline, behind live traffic",
		Long: `Requests, through the API's admin port, all idle images that match every filter, with the pipeline in force. An
image that is ready stays visible until it is replaced. The API spreads the jobs over time, so that images of new products do
not wait; with --all, the next page is requested when the jobs of the page before are due. At least one filter is required,
or --every-image, so that a script whose variables are not set does not request every image. The command may be repeated:
images in progress are skipped. Images that were processed meanwhile and still match are requested again, unless --older-than
excludes them.`,
		Example: "  vitrine images reprocess --status failed --code connect_failed --all\n" +
			"  vitrine images reprocess --pipeline-hash 5f70bf18... --all --admin http://localhost:9090",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.check(); err != nil {
				return err
			}
			return c.reprocess(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.request.Status, "status", "", "images with this status: pending, ready or failed")
	f.StringVar(&o.request.Code, "code", "", "images whose processing or reprocessing failed with this code")
	f.DurationVar(&o.olderThan, "older-than", 0, "images whose last request is older than this, such as 36h")
	f.StringVar(&o.request.PipelineHash, "pipeline-hash", "", "images that were last requested with the pipeline of this hash")
	f.BoolVar(&o.request.All, "every-image", false, "every image, instead of filters")
	f.IntVar(&o.request.Limit, "limit", 100, "images of one page, at most 1000")
	f.Int64Var(&o.request.After, "after", 0, "continue after the image with this id")
	f.BoolVar(&o.all, "all", false, "all pages")
	f.StringVar(&o.admin, "admin", "http://localhost:9090", "URL of an API's admin port")
	f.DurationVar(&o.timeout, "timeout", 2*time.Minute, "longest time for one page, with retries")
	return cmd
}

func (o *reprocessOptions) check() error {
	if o.olderThan != 0 {
		o.request.OlderThan = o.olderThan.String()
	}
	var wrong mistakes
	filtered := cmp.Or(o.request.Status, o.request.Code, o.request.OlderThan, o.request.PipelineHash) != ""
	wrong.check(filtered || o.request.All,
		"give at least one of --status, --code, --older-than and --pipeline-hash, or --every-image")
	wrong.check(!filtered || !o.request.All,
		"--every-image: cannot be given with --status, --code, --older-than or --pipeline-hash")
	wrong.check(o.olderThan >= 0, "--older-than: must be above 0")
	wrong.check(o.request.Limit > 0, "--limit: must be at least 1")
	wrong.check(isWebURL(o.admin), "--admin: give the URL of the API's admin port, with http:// or https://")
	wrong.check(o.timeout > 0, "--timeout: must be above 0")
	return wrong.err()
}

func (c console) reprocess(ctx context.Context, o reprocessOptions) error {
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment}
	defer transport.CloseIdleConnections()
	api := apiClient{
		base: strings.TrimRight(o.admin, "/"), web: &http.Client{Transport: transport, Timeout: downloadTimeout},
	}
	var requested, skipped int
	for page := 1; ; page++ {
		done, err := c.reprocessPage(ctx, api, o)
		if err != nil {
			return fmt.Errorf("page %d, after image %d: %w", page, o.request.After, err)
		}
		requested, skipped = requested+done.Requested, skipped+done.Skipped
		spread := time.Duration(done.Spread * float64(time.Second))
		c.say("page %d: %d requested again, the last is due in %s, %d skipped", page, done.Requested, spread, done.Skipped)
		if done.Next == 0 || !o.all {
			c.say("%d requested again, %d skipped", requested, skipped)
			if done.Next != 0 {
				c.say("there may be more: --after %d, or --all", done.Next)
			}
			return nil
		}
		o.request.After = done.Next
		if !backoff.Sleep(ctx, spread) {
			return fmt.Errorf("stopped; continue with --after %d: %w", done.Next, ctx.Err())
		}
	}
}

// reprocessPage requests one page, and retries if the API is not available: images requested by a failed call are then
// skipped.
func (c console) reprocessPage(ctx context.Context, api apiClient, o reprocessOptions) (done reprocessedJSON, err error) {
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	err = retry(ctx, func(ctx context.Context) error {
		done = reprocessedJSON{}
		return api.call(ctx, http.MethodPost, "/images/reprocess", o.request, &done)
	}, c.sayWaiting)
	return done, err
}

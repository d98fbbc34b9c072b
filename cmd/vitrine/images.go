package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"vitrine.io/pkg/foundation/backoff"
)

func (c console) imagesCommand() *cobra.Command {
	group := &cobra.Command{Use: "images", Short: "Ask for pictures again, many at a time"}
	group.AddCommand(c.reprocessCommand())
	return group
}

// reprocessOptions are what can be said about images reprocess.
type reprocessOptions struct {
	admin     string
	ask       reprocessJSON
	olderThan time.Duration
	all       bool
	timeout   time.Duration // of one page, with repetitions
}

// reprocessJSON is what is sent.
type reprocessJSON struct {
	Status       string `json:"status,omitempty"`
	Code         string `json:"code,omitempty"`
	OlderThan    string `json:"older_than,omitempty"`
	PipelineHash string `json:"pipeline_hash,omitempty"`
	Limit        int    `json:"limit"`
	After        int64  `json:"after,omitempty"`
}

// reprocessedJSON is what is answered.
type reprocessedJSON struct {
	Requested int     `json:"requested"`
	Skipped   int     `json:"skipped"`
	Next      int64   `json:"next"` // nothing at the end
	Spread    float64 `json:"spread_seconds"`
}

func (c console) reprocessCommand() *cobra.Command {
	var o reprocessOptions
	cmd := &cobra.Command{
		Use: "reprocess", Args: cobra.NoArgs,
		Short: "Ask again for pictures by what they are, behind live traffic",
		Long: `Asks the API, through its admin port, for all idle pictures that fit every filter, with the pipeline in force. A
picture that is ready stays visible until it is replaced. The API spreads the requests over time, so that pictures which are
posted meanwhile need not wait; with --all the next page is asked for when the one before is due. At least one filter has to
be given. It may be repeated: what is in work is skipped. What is done already and still fits is asked for once more, unless
--older-than leaves it out.`,
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
	f.StringVar(&o.ask.Status, "status", "", "pictures that clients see as pending, ready or failed")
	f.StringVar(&o.ask.Code, "code", "", "pictures that failed, or could not be remade, with this code")
	f.DurationVar(&o.olderThan, "older-than", 0, "pictures that were last asked for longer ago than this, such as 36h")
	f.StringVar(&o.ask.PipelineHash, "pipeline-hash", "", "pictures that were last asked for with the pipeline of this hash")
	f.IntVar(&o.ask.Limit, "limit", 100, "pictures of one page, at most 1000")
	f.Int64Var(&o.ask.After, "after", 0, "go on after the picture with this id")
	f.BoolVar(&o.all, "all", false, "page after page, to the end")
	f.StringVar(&o.admin, "admin", "http://localhost:9090", "URL of an API's admin port")
	f.DurationVar(&o.timeout, "timeout", 2*time.Minute, "longest time for one page, with repetitions")
	return cmd
}

func (o *reprocessOptions) check() error {
	var wrong []error
	if o.ask.Status == "" && o.ask.Code == "" && o.olderThan == 0 && o.ask.PipelineHash == "" {
		wrong = append(wrong, errors.New("give at least one of --status, --code, --older-than and --pipeline-hash"))
	}
	if o.olderThan < 0 {
		wrong = append(wrong, errors.New("--older-than: has to be above 0"))
	} else if o.olderThan > 0 {
		o.ask.OlderThan = o.olderThan.String()
	}
	if o.ask.Limit < 1 {
		wrong = append(wrong, errors.New("--limit: has to be at least 1"))
	}
	if !strings.HasPrefix(o.admin, "http://") && !strings.HasPrefix(o.admin, "https://") {
		wrong = append(wrong, errors.New("--admin: give the URL of the API's admin port, with http:// or https://"))
	}
	if o.timeout <= 0 {
		wrong = append(wrong, errors.New("--timeout: has to be above 0"))
	}
	return errors.Join(wrong...)
}

func (c console) reprocess(ctx context.Context, o reprocessOptions) error {
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment}
	defer transport.CloseIdleConnections()
	api := apiClient{
		base: strings.TrimRight(o.admin, "/"), web: &http.Client{Transport: transport, Timeout: downloadPatience},
	}
	var requested, skipped int
	for page := 1; ; page++ {
		done, err := c.reprocessPage(ctx, api, o)
		if err != nil {
			return fmt.Errorf("page %d, after picture %d: %w", page, o.ask.After, err)
		}
		requested, skipped = requested+done.Requested, skipped+done.Skipped
		spread := time.Duration(done.Spread * float64(time.Second))
		c.say("page %d: %d asked for again, the last of them in %s, %d skipped", page, done.Requested, spread, done.Skipped)
		if done.Next == 0 || !o.all {
			c.say("%d asked for again, %d skipped", requested, skipped)
			if done.Next != 0 {
				c.say("there may be more: --after %d, or --all", done.Next)
			}
			return nil
		}
		o.ask.After = done.Next
		if !backoff.Sleep(ctx, spread) {
			return fmt.Errorf("stopped; go on with --after %d: %w", done.Next, ctx.Err())
		}
	}
}

// reprocessPage asks for one page, again if the API is busy: what was asked for already is then skipped.
func (c console) reprocessPage(ctx context.Context, api apiClient, o reprocessOptions) (done reprocessedJSON, err error) {
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	err = insist(ctx, func(ctx context.Context) error {
		done = reprocessedJSON{}
		return api.call(ctx, http.MethodPost, "/images/reprocess", o.ask, &done)
	}, func(err error) { c.say("waiting: %v", err) })
	return done, err
}

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"vitrine.io/pkg/adapter/kafka"
	"vitrine.io/pkg/foundation/event"
)

// DeadConfig is the configuration of dead list and dead show.
type DeadConfig struct {
	Kafka kafka.Config `envPrefix:"KAFKA_"`
}

// deadFilter selects dead letters. A zero field matches all.
type deadFilter struct {
	code        string
	product     int64
	since       time.Duration
	undecodable bool
}

func (f *deadFilter) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.code, "code", "", "only images that failed with this code")
	cmd.Flags().Int64Var(&f.product, "product", 0, "only dead letters of this product")
	cmd.Flags().DurationVar(&f.since, "since", 0, "only dead letters of at most this age, such as 24h")
	cmd.Flags().BoolVar(&f.undecodable, "undecodable", false, "only records that could not be decoded")
}

// check returns an error if the filter is not valid.
func (f *deadFilter) check() error {
	if f.since < 0 {
		return errors.New("--since: must not be below 0")
	}
	return nil
}

func (f *deadFilter) matches(l deadLetter, now time.Time) bool {
	return (f.code == "" || l.Code == f.code) && (f.product == 0 || l.Product == strconv.FormatInt(f.product, 10)) &&
		(f.since == 0 || now.Sub(l.Time) <= f.since) && (!f.undecodable || l.Undecodable != nil)
}

func (c console) deadCommand() *cobra.Command {
	group := &cobra.Command{
		Use: "dead", Short: "List images that failed and records that could not be decoded, and replay them",
		Long: `Reads the topic vitrine.images.dead, which keeps its records for thirty days, without committing offsets.
Configured like the other programs, by VITRINE_KAFKA_* variables; replay needs all variables of the API. The filters do not
check that a code or a product exists.`,
	}
	group.AddCommand(c.deadListCommand(), c.deadShowCommand(), c.deadReplayCommand())
	return group
}

func (c console) deadListCommand() *cobra.Command {
	var filter deadFilter
	var limit int
	var output, file string
	cmd := &cobra.Command{
		Use: "list", Args: cobra.NoArgs, Short: "List dead letters, the newest last",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "table" && output != "json" {
				return fmt.Errorf("--output: must be table or json, not %q", output)
			}
			if limit < 1 {
				return errors.New("--limit: must be at least 1")
			}
			if err := filter.check(); err != nil {
				return err
			}
			cfg, err := loadConfig[DeadConfig](c, file)
			if err != nil {
				return err
			}
			found, total, err := listDead(cmd.Context(), cfg.Kafka, filter, limit)
			if err != nil {
				return err
			}
			if output == "json" {
				return json.NewEncoder(c.stdout).Encode(map[string]any{"dead": found, "total": total})
			}
			return tableDead(c.stdout, found, total)
		},
	}
	filter.flags(cmd)
	cmd.Flags().IntVar(&limit, "limit", 100, "how many of the newest to list")
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table or json")
	cmd.Flags().StringVar(&file, "config", "", "YAML file with the configuration")
	return cmd
}

// listDead returns the newest limit letters that match the filter, the newest last, and the number of all that match. Of
// several records with the same event id only the newest counts.
func listDead(ctx context.Context, cfg kafka.Config, filter deadFilter, limit int) ([]deadLetter, int, error) {
	now, latest := time.Now(), make(map[string]deadLetter)
	err := readDead(ctx, cfg, func(l deadLetter) error {
		if known, ok := latest[l.ID]; filter.matches(l, now) && (!ok || !l.Time.Before(known.Time)) {
			if l.Undecodable != nil { // not part of a list, and possibly large
				brief := *l.Undecodable
				brief.Payload, brief.Headers = nil, nil
				l.Undecodable = &brief
			}
			latest[l.ID] = l
		}
		return nil
	})
	if err != nil {
		return nil, 0, err
	}
	found := slices.AppendSeq(make([]deadLetter, 0, len(latest)), maps.Values(latest)) // not nil, for JSON
	slices.SortFunc(found, func(a, b deadLetter) int { return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(a.ID, b.ID)) })
	return found[max(0, len(found)-limit):], len(found), nil
}

func tableDead(out io.Writer, found []deadLetter, total int) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	if total > 0 {
		fmt.Fprintln(table, "TIME\tEVENT\tPRODUCT\tIMAGE\tTOKEN\tCODE\tDETAIL")
	}
	for _, l := range found {
		image, token, detail := "-", "-", l.Unreadable
		switch {
		case l.Image != nil:
			image, token = strconv.FormatInt(l.Image.ImageID, 10), strconv.FormatInt(l.Image.FencingToken, 10)
			detail = l.Image.Detail + " " + l.Image.SourceURL
		case l.Undecodable != nil:
			detail = l.Undecodable.Reason
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", l.Time.UTC().Format(time.RFC3339), printable(l.ID),
			cmp.Or(printable(l.Product), "-"), image, token, printable(l.Code), printable(detail))
	}
	if len(found) < total {
		fmt.Fprintf(table, "%d older dead letters are not listed: see --limit\n", total-len(found))
	}
	return table.Flush()
}

// printable returns at most 200 characters of text, with a space for each that a terminal might interpret.
func printable(text string) string {
	clean := make([]rune, 0, len(text))
	for _, r := range text {
		if !strconv.IsPrint(r) {
			r = ' '
		}
		if clean = append(clean, r); len(clean) == 200 {
			break
		}
	}
	return string(clean)
}

func (c console) deadShowCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "show EVENT", Args: cobra.ExactArgs(1), Short: "Show one dead letter as JSON",
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := loadConfig[DeadConfig](c, file)
			if err != nil {
				return err
			}
			var found *deadLetter
			if err := readDead(cmd.Context(), cfg.Kafka, func(l deadLetter) error {
				if l.ID == args[0] && (found == nil || !l.Time.Before(found.Time)) {
					found = &l
				}
				return nil
			}); err != nil {
				return err
			}
			if found == nil {
				return fmt.Errorf("there is no dead letter %s", args[0])
			}
			if u := found.Undecodable; u != nil && utf8.Valid(u.Payload) {
				found.Text = string(u.Payload)
			}
			return writeJSON(c.stdout, found)
		},
	}
	cmd.Flags().StringVar(&file, "config", "", "YAML file with the configuration")
	return cmd
}

// deadLetter is one record of the dead topic. Image or Undecodable is its content; both are nil if it cannot be decoded
// itself.
type deadLetter struct {
	ID          string             `json:"event_id"` // partition/offset if it has none
	Time        time.Time          `json:"time"`
	Partition   int32              `json:"partition"` // of the dead topic
	Offset      int64              `json:"offset"`
	Product     string             `json:"product_id"` // as the record's key says
	Code        string             `json:"code"`
	Image       *event.ImageDead   `json:"image,omitempty"`
	Undecodable *event.Undecodable `json:"record,omitempty"`
	Text        string             `json:"payload_text,omitempty"` // Undecodable's payload, if it is text
	Unreadable  string             `json:"unreadable,omitempty"`   // why the record is not a valid dead letter
}

// The codes of dead letters that are not about images.
const (
	codeUndecodable = "undecodable" // a record of another topic
	codeUnreadable  = "unreadable"  // a record of the dead topic itself
)

// readDead calls fn with every dead letter, in the order of each partition.
func readDead(ctx context.Context, cfg kafka.Config, fn func(deadLetter) error) error {
	kafka.BridgeLogger(zap.NewNop())
	reader, err := kafka.NewReader(cfg)
	if err != nil {
		return err
	}
	if err := reader.Read(ctx, event.TopicDead, func(r kafka.Record) error { return fn(toDeadLetter(r)) }); err != nil {
		return fmt.Errorf("read dead letters: %w", err)
	}
	return nil
}

func toDeadLetter(r kafka.Record) deadLetter {
	l := deadLetter{
		ID:   fmt.Sprintf("%d/%d", r.Partition, r.Offset),
		Time: r.Time, Partition: r.Partition, Offset: r.Offset, Product: string(r.Key), Code: codeUnreadable,
	}
	m, err := event.FromRecord(event.TopicDead, r.Key, r.Value, r.Headers)
	if err != nil {
		l.Unreadable = err.Error()
		return l
	}
	l.ID = m.ID
	switch m.Type {
	case event.TypeImageDead:
		var body event.ImageDead
		if body, err = event.Decode[event.ImageDead](m); err == nil {
			l.Image, l.Code, l.Product = &body, body.Code, event.Key(body.ProductID)
		}
	case event.TypeUndecodable:
		var body event.Undecodable
		if body, err = event.Decode[event.Undecodable](m); err == nil {
			l.Undecodable, l.Code = &body, codeUndecodable
		}
	default:
		err = fmt.Errorf("event type %q does not belong to this topic", m.Type)
	}
	if err != nil {
		l.Unreadable = err.Error()
	}
	return l
}

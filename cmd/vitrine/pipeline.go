package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"vitrine.io/pkg/adapter/postgres"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/foundation/pipeline"
	"vitrine.io/pkg/platform/program"
)

// StatusConfig is everything that can be said about pipeline status.
type StatusConfig struct {
	Postgres postgres.Config `envPrefix:"POSTGRES_"`
}

func (c console) pipelineCommand() *cobra.Command {
	group := &cobra.Command{Use: "pipeline", Short: "Check an ImagePipeline, or see which one each instance has in force"}
	group.AddCommand(
		&cobra.Command{
			Use: "check FILE", Args: cobra.ExactArgs(1),
			Short: "Read an ImagePipeline as the programs do, and tell its revision or everything that is wrong with it",
			Long: `Reads FILE, or what comes in if FILE is -. Needs no server and no configuration.

A revision names the whole specification: it is what "vitrine pipeline status" and the metric
vitrine_pipeline_revision_info show once the programs have it in force. The hash names the part that changes pictures.
Exits with 1 if anything is wrong.`,
			RunE: func(cmd *cobra.Command, args []string) error { return c.checkPipeline(args[0], cmd.InOrStdin()) },
		},
		c.pipelineStatusCommand(),
	)
	return group
}

// checkPipeline prints a line for each mistake in the document, or that there is none.
func (c console) checkPipeline(file string, stdin io.Reader) error {
	in := stdin
	if file == "-" {
		file = "stdin"
	} else {
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, pipeline.MaxDocument+1))
	if err != nil {
		return fmt.Errorf("read pipeline: %w", err)
	}
	p, err := pipeline.Parse(data)
	if invalid := fault.From(err); invalid != nil && len(invalid.Fields) > 0 {
		for _, f := range invalid.Fields {
			fmt.Fprintf(c.stdout, "%s: %s: %s\n", file, f.Path, f.Detail)
		}
		return fmt.Errorf("%s: the image pipeline is not valid", file)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	r := pipeline.NewRevision(p)
	fmt.Fprintf(c.stdout, "OK: ImagePipeline %s, revision %s, hash %s\n", r.Name(), r.ID(), r.Hash())
	return nil
}

func (c console) pipelineStatusCommand() *cobra.Command {
	var output, file string
	cmd := &cobra.Command{
		Use: "status", Args: cobra.NoArgs,
		Short: "List every running instance with the revision it has in force, and why its file is not",
		Long: `Shows what each api and worker has said within the last minute; they say it every ten seconds and at each reload.
Configured like the other programs, by VITRINE_POSTGRES_* variables.

Exits with 0 if all have the same revision in force and none has refused its file, or else with 1. Right after a change the
one that all have can still be the old one: look for the revision that "vitrine pipeline check" told.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "table" && output != "json" {
				return fmt.Errorf("--output is table or json, not %q", output)
			}
			cfg, err := configured[StatusConfig](c, file)
			if err != nil {
				return err
			}
			return c.pipelineStatus(cmd.Context(), cfg.Postgres, output)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table or json")
	cmd.Flags().StringVar(&file, "config", "", "YAML file with the configuration")
	return cmd
}

func (c console) pipelineStatus(ctx context.Context, cfg postgres.Config, output string) (err error) {
	db, err := postgres.Open(cfg, zap.NewNop(), prometheus.NewRegistry())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	reports, err := postgres.NewStore(db).Heartbeats(ctx, program.Silence)
	if err != nil {
		return fmt.Errorf("read heartbeats: %w", err)
	}
	if output == "json" {
		err = writeReports(c.stdout, reports)
	} else {
		err = listReports(c.stdout, reports)
	}
	return errors.Join(err, agreement(reports))
}

// agreement is nil if all instances have the same revision in force, and each its file's.
func agreement(reports []pipeline.Report) error {
	if len(reports) == 0 {
		return fmt.Errorf("no instance has been heard of for %s", program.Silence)
	}
	revisions, refused := map[string]bool{}, 0
	for _, r := range reports {
		revisions[r.Revision] = true
		if r.Error != "" {
			refused++
		}
	}
	var wrong []error
	if len(revisions) > 1 {
		wrong = append(wrong, fmt.Errorf("%d revisions are in force", len(revisions)))
	}
	if refused > 0 {
		wrong = append(wrong, fmt.Errorf("%d of %d instances have refused their file", refused, len(reports)))
	}
	return errors.Join(wrong...)
}

// listReports writes the reports for people.
func listReports(out io.Writer, reports []pipeline.Report) error {
	if len(reports) == 0 {
		return nil
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "INSTANCE\tROLE\tREVISION\tIN FORCE\tSEEN\tERROR")
	for _, r := range reports {
		mistake := r.Error
		if mistake == "" {
			mistake = "-"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\tfor %s\t%s ago\t%s\n", r.Instance, r.Role, r.Revision,
			r.InForce.Truncate(time.Second), r.Silent.Truncate(time.Second), mistake)
	}
	return table.Flush()
}

// reportJSON is a report as machines read it.
type reportJSON struct {
	Instance string  `json:"instance"`
	Role     string  `json:"role"`
	Revision string  `json:"revision"`
	InForce  float64 `json:"in_force_seconds"`
	Silent   float64 `json:"seen_seconds_ago"`
	Error    string  `json:"error"` // empty: the file is in force
}

// writeReports writes the reports for machines.
func writeReports(out io.Writer, reports []pipeline.Report) error {
	list := make([]reportJSON, len(reports))
	for i, r := range reports {
		list[i] = reportJSON{
			Instance: r.Instance, Role: r.Role, Revision: r.Revision,
			InForce: r.InForce.Seconds(), Silent: r.Silent.Seconds(), Error: r.Error,
		}
	}
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	return encoder.Encode(map[string]any{"instances": list})
}

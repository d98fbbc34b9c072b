package main

import (
	"cmp"
	"context"
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

// CheckConfig is the configuration of pipeline check.
type CheckConfig struct {
	Bounds pipeline.Bounds `envPrefix:"PIPELINE_"`
}

// StatusConfig is the configuration of pipeline status.
type StatusConfig struct {
	Postgres postgres.Config `envPrefix:"POSTGRES_"`
}

func (c console) pipelineCommand() *cobra.Command {
	group := &cobra.Command{
		Use:   "pipeline",
		Short: "Check an ImagePipeline, compare it with the one in force, or list which one each instance has in force",
	}
	group.AddCommand(
		&cobra.Command{
			Use: "check FILE", Args: cobra.ExactArgs(1),
			Short: "Parse an ImagePipeline as the programs do, and print its revision or every mistake",
			Long: `Reads FILE, or the standard input if FILE is -: a file, or what "kubectl get imagepipeline NAME -o yaml" prints.
Needs no server. Without the bounds of the installation (VITRINE_PIPELINE_ALLOW_CIDRS, _ALLOW_PORTS and _MAX_*, as the
programs have them) it applies their defaults.

The revision identifies the whole specification and the bounds: it is what "vitrine pipeline status" and the metric
vitrine_pipeline_revision_info show once the programs have it in force. The hash identifies the part that affects renditions.
Exits with 1 if there is a mistake.`,
			RunE: func(cmd *cobra.Command, args []string) error { return c.checkPipeline(args[0], cmd.InOrStdin()) },
		},
		c.pipelineDiffCommand(), c.pipelineStatusCommand(),
	)
	return group
}

// checkPipeline prints the revision, or a line for each mistake in the document.
func (c console) checkPipeline(file string, stdin io.Reader) error {
	cfg, err := loadConfig[CheckConfig](c, "")
	if err != nil {
		return err
	}
	file, data, err := readDocument(file, stdin)
	if err != nil {
		return err
	}
	p, err := cfg.Bounds.Parse(data)
	if invalid := fault.From(err); invalid != nil && len(invalid.Fields) > 0 {
		for _, f := range invalid.Fields {
			fmt.Fprintf(c.stdout, "%s: %s: %s\n", file, f.Path, f.Detail)
		}
		return fmt.Errorf("%s: %s", file, invalid.Detail)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	r := cfg.Bounds.NewRevision(p)
	fmt.Fprintf(c.stdout, "OK: ImagePipeline %s, revision %s, hash %s\n", r.Name(), r.ID(), r.Hash())
	return nil
}

// readDocument returns what a file contains, or the standard input if it is -, and its name. It reads little more than
// pipeline.MaxDocument bytes.
func readDocument(file string, stdin io.Reader) (name string, data []byte, err error) {
	name = "stdin"
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return "", nil, err
		}
		defer f.Close()
		name, stdin = file, f
	}
	if data, err = io.ReadAll(io.LimitReader(stdin, pipeline.MaxDocument+1)); err != nil {
		return "", nil, fmt.Errorf("read pipeline: %w", err)
	}
	return name, data, nil
}

func (c console) pipelineStatusCommand() *cobra.Command {
	var output, file string
	cmd := &cobra.Command{
		Use: "status", Args: cobra.NoArgs,
		Short: "List every running instance with its revision in force and the error of its file",
		Long: `Shows the heartbeats of the last minute; each api and worker writes one every ten seconds and at each reload.
Configured like the other programs, by VITRINE_POSTGRES_* variables.

Exits with 0 if all have the same revision in force and none has refused its file, or else with 1. Right after a change all
may still have the old revision: compare it with the output of "vitrine pipeline check".`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "table" && output != "json" {
				return fmt.Errorf("--output: must be table or json, not %q", output)
			}
			cfg, err := loadConfig[StatusConfig](c, file)
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
	reports, err := postgres.NewStore(db).Heartbeats(ctx, program.HeartbeatTTL)
	if err != nil {
		return fmt.Errorf("read heartbeats: %w", err)
	}
	if output == "json" {
		err = writeReports(c.stdout, reports)
	} else {
		err = listReports(c.stdout, reports)
	}
	return errors.Join(err, checkAgreement(reports))
}

// checkAgreement returns nil if all instances have the same revision in force and none has refused its file.
func checkAgreement(reports []pipeline.Report) error {
	if len(reports) == 0 {
		return fmt.Errorf("no instance has written a heartbeat for %s", program.HeartbeatTTL)
	}
	revisions, refused := map[string]bool{}, 0
	for _, r := range reports {
		revisions[r.Revision] = true
		if r.Error != "" {
			refused++
		}
	}
	var wrong mistakes
	wrong.check(len(revisions) == 1, "%d revisions are in force", len(revisions))
	wrong.check(refused == 0, "%d of %d instances have refused their file", refused, len(reports))
	return wrong.err()
}

// listReports writes the reports as a table.
func listReports(out io.Writer, reports []pipeline.Report) error {
	if len(reports) == 0 {
		return nil
	}
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "INSTANCE\tROLE\tREVISION\tIN FORCE\tSEEN\tERROR")
	for _, r := range reports {
		fmt.Fprintf(table, "%s\t%s\t%s\tfor %s\t%s ago\t%s\n", r.Instance, r.Role, r.Revision,
			r.InForce.Truncate(time.Second), r.Age.Truncate(time.Second), cmp.Or(r.Error, "-"))
	}
	return table.Flush()
}

// reportJSON is the JSON form of a report.
type reportJSON struct {
	Instance string  `json:"instance"`
	Role     string  `json:"role"`
	Revision string  `json:"revision"`
	InForce  float64 `json:"in_force_seconds"`
	Silent   float64 `json:"seen_seconds_ago"`
	Error    string  `json:"error"` // empty: the file is in force
}

// writeReports writes the reports as JSON.
func writeReports(out io.Writer, reports []pipeline.Report) error {
	list := make([]reportJSON, len(reports))
	for i, r := range reports {
		list[i] = reportJSON{
			Instance: r.Instance, Role: r.Role, Revision: r.Revision,
			InForce: r.InForce.Seconds(), Silent: r.Age.Seconds(), Error: r.Error,
		}
	}
	return writeJSON(out, map[string]any{"instances": list})
}

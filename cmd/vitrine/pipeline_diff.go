package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"vitrine.io/pkg/domain/backfill"
	"vitrine.io/pkg/foundation/pipeline"
)

func (c console) pipelineDiffCommand() *cobra.Command {
	o := &backfillOptions{plan: planOptions{pace: backfill.DefaultPace()}}
	cmd := &cobra.Command{
		Use: "diff FILE", Args: cobra.ExactArgs(1),
		Short: "Show what a change of the pipeline affects: fields, images and the estimated cost of a backfill",
		Long: `Compares FILE, or the standard input if FILE is -, with the pipeline in force, or with that of --from, and
estimates from a sample how many existing images differ. Changes nothing. Configured like the other programs, by
VITRINE_POSTGRES_* variables.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.plan.file = args[0]
			return c.withManager(cmd, o, func(ctx context.Context, m managed) error {
				return c.diffPipeline(ctx, m, o)
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.plan.from, "from", "", "ImagePipeline to compare with, - for the standard input; default: the one in force")
	f.StringVar(&o.config, "config", "", "YAML file with the configuration")
	f.StringVarP(&o.output, "output", "o", "table", "table or json")
	f.Float64Var(&o.plan.pace.Rate, "rate", o.plan.pace.Rate, "images a second, for the estimated duration")
	return cmd
}

// diffJSON is the JSON form of a difference between pipelines.
type diffJSON struct {
	Changes  []fieldChange `json:"changes"`
	FromHash string        `json:"from_hash"`
	ToHash   string        `json:"to_hash"`
	Affects  string        `json:"affects"` // a sentence
	Plan     *planJSON     `json:"plan,omitempty"`
}

// fieldChange is a field with two values, in JSON. "" means that the field is not there.
type fieldChange struct {
	Path string `json:"path"`
	From string `json:"from"`
	To   string `json:"to"`
}

func (c console) diffPipeline(ctx context.Context, m managed, o *backfillOptions) error {
	target, err := m.load(o.plan.file)
	if err != nil {
		return err
	}
	from, err := m.before(ctx, o.plan.from, target)
	if err != nil {
		return err
	}
	diff := diffJSON{
		Changes: compareFields(from, target), FromHash: from.Hash(), ToHash: target.Hash(), Affects: "no existing image",
	}
	var plan backfill.Plan
	selection, affected := backfill.Compare(from.Spec(), target.Spec()).Selection()
	if affected {
		diff.Affects = selectionText(selection)
		plan, err = m.Estimate(ctx, backfill.Proposal{Target: target, Selection: selection, Pace: o.plan.pace})
		if err != nil {
			return describeFault(err)
		}
		diff.Plan = new(toPlanJSON(plan))
	}
	if o.output == "json" {
		return writeJSON(c.stdout, diff)
	}
	for _, f := range diff.Changes {
		fmt.Fprintf(c.stdout, "%s: %s -> %s\n", f.Path, orNone(f.From), orNone(f.To))
	}
	table := tabwriter.NewWriter(c.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "hash\t%s -> %s\naffects\t%s\n", diff.FromHash, diff.ToHash, diff.Affects)
	if affected {
		writePlan(table, plan)
	}
	return table.Flush()
}

func orNone(text string) string {
	if text == "" {
		return "(none)"
	}
	return text
}

// compareFields returns the fields in which two specifications differ, by their paths.
func compareFields(from, to *pipeline.Revision) []fieldChange {
	before, after := map[string]string{}, map[string]string{}
	flatten("spec", from.Spec(), before)
	flatten("spec", to.Spec(), after)
	paths := maps.Clone(before)
	maps.Copy(paths, after)
	changes := []fieldChange{}
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		if before[path] != after[path] {
			changes = append(changes, fieldChange{Path: path, From: before[path], To: after[path]})
		}
	}
	return changes
}

// flatten adds the values of a specification to values, by their paths. Renditions are named.
func flatten(path string, v any, values map[string]string) {
	text, err := json.Marshal(v)
	if err != nil {
		values[path] = err.Error()
		return
	}
	var decoded any
	_ = json.Unmarshal(text, &decoded) // it was encoded just now
	flattenJSON(path, decoded, values)
}

func flattenJSON(path string, v any, values map[string]string) {
	switch v := v.(type) {
	case map[string]any:
		for name, field := range v {
			flattenJSON(path+"."+name, field, values)
		}
	case []any:
		for i, item := range v {
			at := fmt.Sprintf("%s[%d]", path, i)
			if object, ok := item.(map[string]any); ok && object["name"] != nil {
				at = fmt.Sprintf("%s[%v]", path, object["name"])
			}
			flattenJSON(at, item, values)
		}
	default:
		text, _ := json.Marshal(v)
		values[path] = strings.TrimSpace(string(text))
	}
}

// load returns the pipeline of a file.
func (m managed) load(file string) (*pipeline.Revision, error) {
	name, data, err := readDocument(file, m.stdin)
	if err != nil {
		return nil, err
	}
	p, err := pipeline.Parse(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, describeFault(err))
	}
	return pipeline.NewRevision(p), nil
}

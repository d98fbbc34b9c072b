package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"vitrine.io/pkg/adapter/postgres"
	"vitrine.io/pkg/domain/backfill"
	"vitrine.io/pkg/domain/catalog"
	"vitrine.io/pkg/foundation/fault"
	"vitrine.io/pkg/foundation/media"
	"vitrine.io/pkg/foundation/pipeline"
)

// backfillOptions are the flags of the commands of backfill.
type backfillOptions struct {
	config, output string
	hash           string // of approve
	force          bool   // of suspend
	samples        int    // of canary
	plan           planOptions
}

// planOptions are the flags of backfill plan.
type planOptions struct {
	file, from               string
	status, code, outputHash string
	user                     int64
	requestedBefore          string
	pace                     backfill.Pace
	onMissing                string
	windows                  []string
}

func (c console) backfillCommand() *cobra.Command {
	group := &cobra.Command{
		Use: "backfill", Short: "Make the renditions of existing images again, behind live traffic",
		Long: `A backfill makes existing images again: after a change of the pipeline, or those that an operator selects. It is
planned, tried by a canary if wanted, approved, and then carried out by the API processes. docs/backfills.md explains it.
Configured like the other programs, by VITRINE_POSTGRES_* variables.`,
	}
	o := &backfillOptions{}
	group.PersistentFlags().StringVar(&o.config, "config", "", "YAML file with the configuration")
	group.PersistentFlags().StringVarP(&o.output, "output", "o", "table", "table or json")
	group.AddCommand(c.backfillPlanCommand(o), c.backfillStatusCommand(o), c.backfillCanaryCommand(o),
		c.backfillApproveCommand(o))
	suspend := c.backfillChangeCommand(o, "suspend", "Stop a backfill until it is resumed",
		func(ctx context.Context, m backfill.Manager, name string) (backfill.Backfill, error) {
			return m.Suspend(ctx, name, o.force)
		})
	suspend.Flags().BoolVar(&o.force, "force", false, "also if the backfill belongs to a resource of the cluster")
	group.AddCommand(suspend,
		c.backfillChangeCommand(o, "resume", "Continue a suspended backfill",
			func(ctx context.Context, m backfill.Manager, name string) (backfill.Backfill, error) {
				return m.Resume(ctx, name)
			}),
		c.backfillChangeCommand(o, "cancel", "End a backfill; images that it has made stay as they are",
			func(ctx context.Context, m backfill.Manager, name string) (backfill.Backfill, error) {
				return m.Cancel(ctx, name)
			}))
	return group
}

func (c console) backfillPlanCommand(o *backfillOptions) *cobra.Command {
	p := &o.plan
	cmd := &cobra.Command{
		Use: "plan", Args: cobra.NoArgs,
		Short: "Estimate a backfill from a sample of images, and propose it",
		Long: `Without conditions, the backfill is for the images that a change of the pipeline affects: from the one of --from, or
else the one in force or the one before it, to the one of --file, or else the one in force. If the renditions differ, these
are the ready images whose renditions were made otherwise. If accepted formats were added or limits raised, these are the
images that failed for that reason. With conditions, it is for the images that meet all of them.

An earlier proposal for the pipeline is superseded. Nothing runs before "vitrine backfill approve".`,
		Example: "  vitrine backfill plan --window 'mon-fri 22:00-06:00' --time-zone Europe/Berlin\n" +
			"  vitrine backfill plan --status failed --code connect_failed --rate 5",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.withManager(cmd, o, func(ctx context.Context, m managed) error {
				proposal, err := m.proposal(ctx, *p)
				if err != nil {
					return err
				}
				b, err := m.Propose(ctx, proposal)
				if err != nil {
					return describeFault(err)
				}
				return c.showBackfills(o, b)
			})
		},
	}
	f := cmd.Flags()
	p.pace = backfill.DefaultPace()
	f.StringVar(&p.file, "file", "", "ImagePipeline to make images by, - for the standard input; default: the one in force")
	f.StringVar(&p.from, "from", "",
		"ImagePipeline before the change, - for the standard input; default: the one in force or, if it is the target, "+
			"the one before")
	f.StringVar(&p.status, "status", "", "condition: images with this status, ready or failed")
	f.StringVar(&p.code, "code", "", "condition: images whose processing or reprocessing failed with this code")
	f.Int64Var(&p.user, "user", 0, "condition: images of this user")
	f.StringVar(&p.outputHash, "output-hash", "", "condition: ready images whose renditions were made with this output hash")
	f.StringVar(&p.requestedBefore, "requested-before", "", "condition: images last requested before this time, RFC 3339")
	f.StringVar(&p.onMissing, "on-missing", string(backfill.FetchMissing),
		"images whose original is not kept, or cannot be read: fetch (from their URLs) or skip")
	f.IntVar(&p.pace.MaxInFlight, "max-in-flight", p.pace.MaxInFlight, "maximum jobs that have not ended")
	f.Float64Var(&p.pace.Rate, "rate", p.pace.Rate, "maximum images a second")
	f.StringArrayVar(&p.windows, "window", nil,
		`when it may run, such as "22:00-06:00" or "sat,sun 00:00-24:00"; may be repeated`)
	f.StringVar(&p.pace.TimeZone, "time-zone", p.pace.TimeZone, "IANA name of the time zone of the windows")
	f.Float64Var(&p.pace.FailureThreshold, "failure-threshold", p.pace.FailureThreshold,
		"percentage of images that may fail before it is suspended")
	return cmd
}

func (c console) backfillApproveCommand(o *backfillOptions) *cobra.Command {
	cmd := c.backfillChangeCommand(o, "approve", "Let a proposed backfill start when its pipeline is in force everywhere",
		func(ctx context.Context, m backfill.Manager, name string) (backfill.Backfill, error) {
			hash := o.hash
			if hash == "" {
				b, err := m.Find(ctx, name)
				if err != nil {
					return b, err
				}
				hash = b.TargetHash
			}
			return m.Approve(ctx, name, hash)
		})
	cmd.Flags().StringVar(&o.hash, "hash", "", "fail unless this is the hash of its pipeline")
	return cmd
}

// backfillChangeCommand returns a command that changes one backfill and shows it.
func (c console) backfillChangeCommand(o *backfillOptions, verb, short string,
	change func(ctx context.Context, m backfill.Manager, name string) (backfill.Backfill, error),
) *cobra.Command {
	return &cobra.Command{
		Use: verb + " NAME", Args: cobra.ExactArgs(1), Short: short,
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.withManager(cmd, o, func(ctx context.Context, m managed) error {
				b, err := change(ctx, m.Manager, args[0])
				if err != nil {
					return describeFault(err)
				}
				return c.showBackfills(o, b)
			})
		},
	}
}

func (c console) backfillStatusCommand(o *backfillOptions) *cobra.Command {
	return &cobra.Command{
		Use: "status [NAME]", Args: cobra.MaximumNArgs(1), Short: "List the backfills, or show one",
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.withManager(cmd, o, func(ctx context.Context, m managed) error {
				if len(args) == 1 {
					b, err := m.Find(ctx, args[0])
					if err != nil {
						return describeFault(err)
					}
					return c.showBackfills(o, b)
				}
				list, err := m.Backfills.ListBackfills(ctx)
				if err != nil {
					return fmt.Errorf("list backfills: %w", err)
				}
				return c.listBackfills(o, list)
			})
		},
	}
}

// describeFault returns an error that names every wrong field, without codes.
func describeFault(err error) error {
	f := fault.From(err)
	if f == nil {
		return err
	}
	if len(f.Fields) == 0 {
		return errors.New(f.Detail)
	}
	var wrong mistakes
	for _, field := range f.Fields {
		wrong.check(false, "%s: %s", field.Path, field.Detail)
	}
	return wrong.err()
}

// managed is a Manager with the store on which it works.
type managed struct {
	backfill.Manager
	store *postgres.Store
	stdin io.Reader // of a file with the name -
}

// withManager calls do with a manager of the configured database.
func (c console) withManager(cmd *cobra.Command, o *backfillOptions, do func(context.Context, managed) error) (err error) {
	if o.output != "table" && o.output != "json" {
		return fmt.Errorf("--output: must be table or json, not %q", o.output)
	}
	cfg, err := loadConfig[StatusConfig](c, o.config)
	if err != nil {
		return err
	}
	db, err := postgres.Open(cfg.Postgres, zap.NewNop(), prometheus.NewRegistry())
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	store := postgres.NewStore(db)
	manager := backfill.Manager{By: backfill.CLI, ManagerDeps: backfill.ManagerDeps{
		Backfills: store, Images: store, Sampler: store, Pipelines: store, Canaries: store,
	}}
	return do(cmd.Context(), managed{Manager: manager, store: store, stdin: cmd.InOrStdin()})
}

// proposal returns what the flags propose.
func (m managed) proposal(ctx context.Context, o planOptions) (p backfill.Proposal, err error) {
	p.OnMissing = backfill.OnMissing(o.onMissing)
	if p.Pace, err = o.parsePace(); err != nil {
		return p, err
	}
	if p.Target, err = m.target(ctx, o.file); err != nil {
		return p, err
	}
	selector, err := o.selector()
	if err != nil {
		return p, err
	}
	if selector != (backfill.Selector{}) {
		p.Selection = backfill.Selection{Kind: backfill.ByHand, Selector: selector}
		return p, nil
	}
	from, err := m.before(ctx, o.from, p.Target)
	if err != nil {
		return p, err
	}
	selection, affected := backfill.Compare(from.Spec(), p.Target.Spec()).Selection()
	if !affected {
		return p, errors.New("the change of the pipeline affects no existing image: give conditions to select some")
	}
	p.Selection = selection
	return p, nil
}

func (o planOptions) parsePace() (backfill.Pace, error) {
	pace := o.pace
	for _, text := range o.windows {
		w, err := backfill.ParseWindow(text)
		if err != nil {
			return pace, fmt.Errorf("--window: %w", err)
		}
		pace.Windows = append(pace.Windows, w)
	}
	return pace, nil
}

func (o planOptions) selector() (backfill.Selector, error) {
	s := backfill.Selector{
		Status: catalog.Status(o.status), Code: media.Code(o.code), UserID: catalog.UserID(o.user), OutputHash: o.outputHash,
	}
	if o.requestedBefore != "" {
		at, err := time.Parse(time.RFC3339, o.requestedBefore)
		if err != nil {
			return s, fmt.Errorf("--requested-before: %q is not a time such as 2026-01-31T00:00:00Z", o.requestedBefore)
		}
		s.RequestedBefore = at.UTC()
	}
	return s, nil
}

// target returns the pipeline of a file, or the one in force.
func (m managed) target(ctx context.Context, file string) (*pipeline.Revision, error) {
	if file != "" {
		return m.load(file)
	}
	hash, err := m.hashInForce(ctx)
	if err != nil {
		return nil, err
	}
	return m.Saved(ctx, hash)
}

// hashInForce returns the hash of the pipeline that all api processes have in force.
func (m managed) hashInForce(ctx context.Context) (string, error) {
	inForce, err := m.store.InForce(ctx)
	switch {
	case err != nil:
		return "", fmt.Errorf("read heartbeats: %w", err)
	case len(inForce) == 0:
		return "", errors.New("no api process has written a heartbeat within a minute: give --file and --from")
	case len(inForce) > 1:
		return "", fmt.Errorf("api processes have %d pipelines in force: wait until they agree", len(inForce))
	}
	return inForce[0], nil
}

// before returns the pipeline before a change to target: that of a file; or else the one in force or, if that is the target,
// the last one that was requested before it.
func (m managed) before(ctx context.Context, file string, target *pipeline.Revision) (*pipeline.Revision, error) {
	if file != "" {
		return m.load(file)
	}
	hash, err := m.hashInForce(ctx)
	if err != nil {
		return nil, err
	}
	if hash == target.Hash() {
		if hash, err = m.store.PreviousPipeline(ctx, hash); err != nil {
			return nil, fmt.Errorf("find the pipeline before the one in force (or give --from): %w", err)
		}
	}
	return m.Saved(ctx, hash)
}

package controller

import (
	"context"
	"fmt"
	"time"

	"github.com/go-logr/zapr"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"vitrine.io/pkg/domain/backfill"
	"vitrine.io/pkg/foundation/pipeline"
)

// BridgeLogger sends the logs of the Kubernetes libraries, which are global, to log.
func BridgeLogger(log *zap.Logger) {
	logger := zapr.NewLogger(log.Named("kubernetes"))
	ctrllog.SetLogger(logger)
	klog.SetLogger(logger)
}

// Controller is one replica of the controller.
type Controller struct {
	manager manager.Manager
	started started
	watched []client.Object // one of each kind
}

// started is closed by the manager in every replica, once its caches run. An informer that exists before makes the manager
// wait for its list, also when the program has to stop.
type started chan struct{}

// Start implements manager.Runnable.
func (s started) Start(context.Context) error {
	close(s)
	return nil
}

// NeedLeaderElection implements manager.LeaderElectionRunnable.
func (s started) NeedLeaderElection() bool { return false }

// Deps are what a Controller works with.
type Deps struct {
	Bounds     pipeline.Bounds // those of the pods
	Heartbeats Heartbeats
	MaxAge     time.Duration // of a heartbeat: older ones do not count
	Backfills  *backfill.Manager
	Now        func() time.Time
	Registry   prometheus.Registerer
	Log        *zap.Logger
}

// RESTConfig returns how to reach the API server: as the kubeconfig file says, or, if it is empty, as the pod's
// ServiceAccount.
func RESTConfig(kubeconfig string) (*rest.Config, error) {
	if kubeconfig == "" {
		return rest.InClusterConfig()
	}
	return clientcmd.BuildConfigFromFlags("", kubeconfig)
}

// New returns a controller. It asks the API server for its kinds, and returns an error if that does not answer.
func New(cfg Config, api *rest.Config, deps Deps) (*Controller, error) {
	scheme := runtime.NewScheme()
	if err := clientgoscheme.AddToScheme(scheme); err != nil {
		return nil, fmt.Errorf("register kinds: %w", err)
	}
	logger := zapr.NewLogger(deps.Log)
	m, err := manager.New(api, manager.Options{
		Scheme: scheme, Logger: logger,
		Metrics: metricsserver.Options{BindAddress: "0"}, HealthProbeBindAddress: "0", // the admin port has both
		Cache: cache.Options{
			DefaultNamespaces: map[string]cache.Config{cfg.Namespace: {}},
			// The Role allows no other ConfigMap.
			ByObject: map[client.Object]cache.ByObject{
				&corev1.ConfigMap{}: {Field: fields.OneTermEqualSelector("metadata.name", cfg.ConfigMap)},
			},
		},
		Client:         client.Options{Cache: &client.CacheOptions{Unstructured: true}},
		LeaderElection: true, LeaderElectionID: cfg.Lease, LeaderElectionNamespace: cfg.Namespace,
		LeaderElectionReleaseOnCancel: true,
		LeaseDuration:                 &cfg.LeaseTime,
		RenewDeadline:                 ptr.To(cfg.LeaseTime * 2 / 3),
		RetryPeriod:                   ptr.To(cfg.LeaseTime / 8),
		Controller:                    config.Controller{SkipNameValidation: ptr.To(true)}, // tests have several in one process
	})
	if err != nil {
		return nil, fmt.Errorf("create manager: %w", err)
	}
	c := &Controller{manager: m, started: make(started), watched: []client.Object{newObject(), &corev1.ConfigMap{}}}
	counts := newMetrics(deps.Registry)
	if err := c.setUp(cfg, deps, counts); err != nil {
		return nil, err
	}
	if cfg.Backfills {
		c.watched = append(c.watched, newBackfillObject())
		return c, c.setUpBackfills(cfg, deps, counts)
	}
	return c, nil
}

// setUp adds the reconciler of pipelines and the poller to the manager.
func (c *Controller) setUp(cfg Config, deps Deps, m *metrics) error {
	selected := types.NamespacedName{Namespace: cfg.Namespace, Name: cfg.Pipeline}
	requests := func(context.Context, client.Object) []reconcile.Request {
		return []reconcile.Request{{NamespacedName: selected}}
	}
	beats := make(chan event.GenericEvent)
	p := &poller{
		source: deps.Heartbeats, interval: cfg.Poll, maxAge: deps.MaxAge, failures: m.failures, log: deps.Log,
		changed: func(ctx context.Context) {
			select {
			case beats <- event.GenericEvent{Object: newObject()}:
			case <-ctx.Done():
			}
		},
	}
	r := &reconciler{
		cfg: cfg, bounds: deps.Bounds, client: c.manager.GetClient(), events: c.manager.GetEventRecorder(fieldOwner),
		heartbeats: p.snapshot, metrics: m, log: deps.Log,
		now: func() metav1.Time { return metav1.NewTime(deps.Now()).Rfc3339Copy() },
	}
	if err := c.manager.Add(p); err != nil {
		return fmt.Errorf("add poller: %w", err)
	}
	if err := c.manager.Add(c.started); err != nil {
		return fmt.Errorf("add start: %w", err)
	}
	err := builder.ControllerManagedBy(c.manager).Named("imagepipeline").For(newObject()).
		Watches(&corev1.ConfigMap{}, handler.EnqueueRequestsFromMapFunc(requests)).
		WatchesRawSource(source.Channel(beats, handler.EnqueueRequestsFromMapFunc(requests))).
		Complete(r)
	if err != nil {
		return fmt.Errorf("build controller: %w", err)
	}
	return nil
}

// setUpBackfills adds the reconciler of all ImageBackfills to the manager.
func (c *Controller) setUpBackfills(cfg Config, deps Deps, m *metrics) error {
	all := func(context.Context, client.Object) []reconcile.Request {
		return []reconcile.Request{{NamespacedName: types.NamespacedName{Namespace: cfg.Namespace, Name: cfg.Pipeline}}}
	}
	d := &driver{
		cfg: cfg, bounds: deps.Bounds, client: c.manager.GetClient(), live: c.manager.GetAPIReader(),
		events: c.manager.GetEventRecorder(fieldOwner), manager: deps.Backfills, metrics: m, log: deps.Log,
		now:     func() metav1.Time { return metav1.NewTime(deps.Now()).Rfc3339Copy() },
		written: map[types.UID]time.Time{}, tried: map[int64]time.Time{},
	}
	start := make(chan event.GenericEvent, 1) // rows may have lost their resources while no controller ran
	start <- event.GenericEvent{Object: newBackfillObject()}
	err := builder.ControllerManagedBy(c.manager).Named("imagebackfill").
		Watches(newBackfillObject(), handler.EnqueueRequestsFromMapFunc(all)).
		Watches(newObject(), handler.EnqueueRequestsFromMapFunc(all)).
		WatchesRawSource(source.Channel(start, handler.EnqueueRequestsFromMapFunc(all))).
		Complete(d)
	if err != nil {
		return fmt.Errorf("build controller of backfills: %w", err)
	}
	return nil
}

// Run watches the cluster until ctx ends, and reconciles while this replica is the leader. It returns an error if it loses
// the lease, because another replica is the leader then: the program has to end.
func (c *Controller) Run(ctx context.Context) error { return c.manager.Start(ctx) }

// Check returns nil once the API server has listed all objects that the controller watches, also in a replica that is not
// the leader. It waits for the lists until ctx ends.
func (c *Controller) Check(ctx context.Context) error {
	select {
	case <-c.started:
	case <-ctx.Done():
		return fmt.Errorf("the controller has not started yet: %w", ctx.Err())
	}
	for _, obj := range c.watched {
		if _, err := c.manager.GetCache().GetInformer(ctx, obj); err != nil { // it starts the list, if the leader has not
			return fmt.Errorf("list %T: %w", obj, err)
		}
	}
	return nil
}

package controller

import (
	"context"
	"fmt"
	"reflect"

	"go.uber.org/zap"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"vitrine.io/pkg/foundation/pipeline"
)

// newObject returns an empty ImagePipeline. It is unstructured, so that a missing field stays missing.
func newObject() *unstructured.Unstructured {
	obj := &unstructured.Unstructured{}
	obj.SetGroupVersionKind(schema.FromAPIVersionAndKind(pipeline.APIVersion, pipeline.Kind))
	return obj
}

// reconciler publishes the selected pipeline and writes the status of every pipeline of the namespace.
type reconciler struct {
	cfg        Config
	bounds     pipeline.Bounds
	client     client.Client
	events     events.EventRecorder
	heartbeats func() snapshot
	metrics    *metrics
	log        *zap.Logger
	now        func() metav1.Time
}

// Reconcile implements reconcile.Reconciler. Each step may be repeated at any time.
func (r *reconciler) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	obj := newObject()
	if err := r.client.Get(ctx, req.NamespacedName, obj); err != nil {
		if client.IgnoreNotFound(err) == nil {
			r.metrics.report(req.Name, nil)
			return reconcile.Result{}, nil
		}
		return reconcile.Result{}, fmt.Errorf("read pipeline: %w", err)
	}
	previous, err := statusOf(obj)
	if err != nil { // the status is made anew, and the file must not wait for it
		r.log.Warn("status not readable", zap.String("pipeline", req.Name), zap.Error(err))
	}
	o := r.observe(ctx, obj)
	next := o.next(previous)
	if err := r.report(ctx, obj, previous, next); err != nil {
		return reconcile.Result{}, err
	}
	return reconcile.Result{}, o.publishErr
}

// observe publishes a valid pipeline and returns what the status depends on.
func (r *reconciler) observe(ctx context.Context, obj *unstructured.Unstructured) observation {
	o := observation{generation: obj.GetGeneration(), heartbeats: r.heartbeats(), now: r.now()}
	if obj.GetName() != r.cfg.Pipeline {
		o.selected = r.cfg.Pipeline
		return o
	}
	p, err := r.parse(obj)
	var file string
	if err == nil {
		file, err = publishedDocument(obj)
	}
	if err != nil {
		o.refused = err
		return o
	}
	o.revision = r.bounds.NewRevision(p)
	o.publishErr = r.publish(ctx, file, o.revision)
	return o
}

// parse parses the whole object, as the pods parse the published part of it.
func (r *reconciler) parse(obj *unstructured.Unstructured) (pipeline.Pipeline, error) {
	text, err := document(obj)
	if err != nil {
		return pipeline.Pipeline{}, err
	}
	return r.bounds.Parse([]byte(text))
}

// report writes the status if it has changed, and an Event for each transition.
func (r *reconciler) report(ctx context.Context, obj *unstructured.Unstructured, previous, next Status) error {
	if next.Reason == ReasonNotSelected {
		r.metrics.report(obj.GetName(), nil)
	} else {
		r.metrics.report(obj.GetName(), next.Conditions)
	}
	if reflect.DeepEqual(previous, next) {
		return nil
	}
	before := obj.DeepCopy()
	status, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&next)
	if err != nil {
		return fmt.Errorf("encode status: %w", err)
	}
	obj.Object["status"] = status
	if written, err := patchStatus(ctx, r.client, obj, before); !written {
		return err
	}
	obj.SetResourceVersion("") // Events about different versions would not be counted as repetitions of one
	for _, kind := range []string{Accepted, Published, InForce} {
		was, is := meta.FindStatusCondition(previous.Conditions, kind), meta.FindStatusCondition(next.Conditions, kind)
		if is == nil || was != nil && was.Status == is.Status && was.Reason == is.Reason && was.Message == is.Message {
			continue
		}
		severity := corev1.EventTypeNormal
		switch is.Reason {
		case ReasonInvalid, ReasonExceedsBounds, ReasonPublishFailed, ReasonRefused:
			severity = corev1.EventTypeWarning
		}
		r.events.Eventf(obj, nil, severity, is.Reason, kind, "%s", shorten(is.Message, maxNote))
	}
	return nil
}

// patchStatus writes the status of an object that was read as before. written is false, without an error, if the object is
// gone or was read from a cache that is behind: a difference from an older status could be combined with a newer one to a
// status that never was. The cache then calls the reconciler again.
func patchStatus(ctx context.Context, api client.Client, obj, before client.Object) (written bool, err error) {
	patch := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
	err = api.Status().Patch(ctx, obj, patch, client.FieldOwner(fieldOwner))
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("write status: %w", err)
	}
	return true, nil
}

// statusOf decodes the status of an object. Without one, and with an error, it is that of an object that no controller has
// seen.
func statusOf(obj *unstructured.Unstructured) (Status, error) {
	unseen := Status{ObservedGeneration: -1}
	fields, found, err := unstructured.NestedMap(obj.Object, "status")
	if err != nil || !found {
		return unseen, err
	}
	status := unseen
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(fields, &status); err != nil {
		return unseen, fmt.Errorf("decode status: %w", err)
	}
	return status, nil
}

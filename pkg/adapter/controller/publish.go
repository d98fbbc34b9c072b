package controller

import (
	"context"
	"fmt"
	"maps"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"vitrine.io/pkg/foundation/pipeline"
)

const (
	fieldOwner = "vitrine-controller"
	fileKey    = "imagepipeline.yaml" // in the ConfigMap; the pods' VITRINE_PIPELINE_FILE ends with it

	revisionAnnotation = "vitrine.io/revision" // of the ConfigMap
)

// document returns an object as a file: the spec as its author wrote it. Defaults are not filled in, so that a program of an
// older release, which does not know a new field, accepts the file until the field is used. Annotations and the status are
// not part of it: they may contain characters that YAML does not allow. Nor are the fields of the spec that are left out.
func document(obj *unstructured.Unstructured, leftOut ...string) (string, error) {
	spec := obj.Object["spec"]
	if fields, ok := spec.(map[string]any); ok {
		fields = maps.Clone(fields)
		for _, name := range leftOut {
			delete(fields, name)
		}
		spec = fields
	}
	document, err := yaml.Marshal(map[string]any{
		"apiVersion": pipeline.APIVersion, "kind": pipeline.Kind,
		"metadata": map[string]any{"name": obj.GetName()}, "spec": spec,
	})
	if err != nil {
		return "", fmt.Errorf("encode pipeline: %w", err)
	}
	return string(document), nil
}

// publishedDocument returns the file of the pods, without what concerns only the controller.
func publishedDocument(obj *unstructured.Unstructured) (string, error) {
	return document(obj, "backfill")
}

// publish makes the ConfigMap contain the document and name its revision, which also changes with the bounds. It writes
// nothing if the ConfigMap does already. The ConfigMap has no owner: a deleted ImagePipeline must not take the file from
// pods that start later.
func (r *reconciler) publish(ctx context.Context, document string, revision *pipeline.Revision) error {
	var present corev1.ConfigMap
	err := r.client.Get(ctx, client.ObjectKey{Namespace: r.cfg.Namespace, Name: r.cfg.ConfigMap}, &present)
	if err == nil && present.Data[fileKey] == document && present.Annotations[revisionAnnotation] == revision.ID() {
		return nil
	}
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("read config map: %w", err)
	}
	apply := corev1ac.ConfigMap(r.cfg.ConfigMap, r.cfg.Namespace).
		WithLabels(map[string]string{
			"app.kubernetes.io/managed-by": fieldOwner, "app.kubernetes.io/part-of": "vitrine",
		}).
		WithAnnotations(map[string]string{revisionAnnotation: revision.ID(), "vitrine.io/hash": revision.Hash()}).
		WithData(map[string]string{fileKey: document})
	if err := r.client.Apply(ctx, apply, client.FieldOwner(fieldOwner), client.ForceOwnership); err != nil {
		if apierrors.IsForbidden(err) { // the error names the user, which is no news to who reads the status
			return fmt.Errorf("write config map %s: forbidden", r.cfg.ConfigMap)
		}
		return fmt.Errorf("write config map: %w", err)
	}
	return nil
}

package controller

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"vitrine.io/pkg/foundation/pipeline"
)

// ImagePipeline describes how every image of an installation is processed.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:shortName=imgp,categories=vitrine
// +kubebuilder:subresource:status
// +kubebuilder:metadata:annotations="helm.sh/resource-policy=keep"
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.reason`
// +kubebuilder:printcolumn:name="Revision",type=string,JSONPath=`.status.revision`
// +kubebuilder:printcolumn:name="Instances",type=string,JSONPath=`.status.instances.summary`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.size() <= 63 && self.metadata.name.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?$')",message="metadata.name must be 1 to 63 of a-z, 0-9 and -, beginning and ending with a letter or digit"
type ImagePipeline struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`

	Spec pipeline.Spec `json:"spec"`
	// +optional
	// +kubebuilder:default={}
	Status Status `json:"status,omitzero"`
}

// Status is what the controller reports about an ImagePipeline.
type Status struct {
	// The generation of the spec that the conditions are about; -1 before the first report.
	//
	// +optional
	// +kubebuilder:default=-1
	ObservedGeneration int64 `json:"observedGeneration"`
	// The revision of the valid spec: it covers the whole spec and the bounds of the installation.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=64
	Revision string `json:"revision,omitempty"`
	// The hash of what changes images. Images carry the hash under which they were made.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=64
	Hash string `json:"hash,omitempty"`
	// Why the pipeline is ready, or is not.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=64
	Reason string `json:"reason,omitempty"`
	// How many renditions every image gets.
	//
	// +optional
	RenditionCount int32 `json:"renditionCount,omitempty"`
	// The running programs that read the pipeline, by their heartbeats of the last minute.
	//
	// +optional
	Instances *Instances `json:"instances,omitempty"`
	// The revisions that were published, the newest first.
	//
	// +optional
	// +kubebuilder:validation:MaxItems=10
	// +listType=atomic
	History []PublishedRevision `json:"history,omitempty"`
	// The backfill for the last change of the hash.
	//
	// +optional
	Backfill *ProposedBackfill `json:"backfill,omitempty"`
	// Accepted, Published, InForce, Ready, Reconciling, Stalled.
	//
	// +optional
	// +kubebuilder:validation:MaxItems=16
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// Instances counts the running programs.
type Instances struct {
	// All api and worker processes.
	Total int32 `json:"total"`
	// Those that use the published revision.
	InForce int32 `json:"inForce"`
	// Those that have refused it.
	Refused int32 `json:"refused"`
	// inForce and total for the table of kubectl get, such as 5/6.
	//
	// +kubebuilder:validation:MaxLength=32
	Summary string `json:"summary"`
}

// PublishedRevision is a revision that was published.
type PublishedRevision struct {
	// The revision.
	//
	// +kubebuilder:validation:MaxLength=64
	Revision string `json:"revision"`
	// Its hash.
	//
	// +kubebuilder:validation:MaxLength=64
	Hash string `json:"hash"`
	// The generation of the spec.
	Generation int64 `json:"generation"`
	// When it was published.
	Time metav1.Time `json:"time"`
}

// ProposedBackfill is what followed from a change of the hash.
type ProposedBackfill struct {
	// The generation that changed the hash.
	Generation int64 `json:"generation"`
	// The ImageBackfill that was made for it; empty if no image differs.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=128
	Name string `json:"name,omitempty"`
}

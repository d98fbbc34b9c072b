package controller

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"vitrine.io/pkg/foundation/pipeline"
)

// ImageBackfill makes the renditions of existing images again. The controller makes one for a change of the pipeline, and
// people make others with a selector.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:shortName=imgb,categories=vitrine
// +kubebuilder:subresource:status
// +kubebuilder:metadata:annotations="helm.sh/resource-policy=keep"
// +kubebuilder:printcolumn:name="State",type=string,JSONPath=`.status.state`
// +kubebuilder:printcolumn:name="Done",type=integer,JSONPath=`.status.done`
// +kubebuilder:printcolumn:name="Total",type=integer,JSONPath=`.status.total`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.size() <= 80 && self.metadata.name.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?$')",message="metadata.name must be 1 to 80 of a-z, 0-9 and -, beginning and ending with a letter or digit"
// +kubebuilder:validation:XValidation:rule="has(self.spec.selector) != self.metadata.name.matches('-[1-9][0-9]*$')",message="spec.selector is needed, and metadata.name must not end with - and a number: such names are for the backfills that the controller makes, which have no selector"
type ImageBackfill struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`

	Spec BackfillSpec `json:"spec"`
	// +optional
	// +kubebuilder:default={}
	Status BackfillStatus `json:"status,omitzero"`
}

// BackfillSpec says which images are made again, by what, and how fast.
//
// +kubebuilder:validation:XValidation:rule="has(self.target) == has(oldSelf.target)",message="target is immutable: make another ImageBackfill"
// +kubebuilder:validation:XValidation:rule="has(self.selector) == has(oldSelf.selector)",message="selector is immutable: make another ImageBackfill"
// +kubebuilder:validation:XValidation:rule="has(self.onMissing) == has(oldSelf.onMissing)",message="onMissing is immutable: make another ImageBackfill"
type BackfillSpec struct {
	// The pipeline. Immutable.
	//
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="pipeline is immutable: make another ImageBackfill"
	Pipeline PipelineReference `json:"pipeline"`
	// The hash of the pipeline by which images are made. Default: the one that is published when the backfill is planned; the
	// status has it. Immutable.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:Pattern=`^[0-9a-f]{64}$`
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="target is immutable: make another ImageBackfill"
	Target string `json:"target,omitempty"`
	// Which images: those that meet all conditions. Immutable. The controller leaves it out: then the change of the pipeline
	// says which. Without it the name ends in a number; one that the controller has not made stays without a backfill, and its
	// condition Planned has the reason NoBackfill.
	//
	// +optional
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="selector is immutable: make another ImageBackfill"
	Selector *BackfillSelector `json:"selector,omitempty"`
	// What becomes of images whose original is not kept: Fetch (default) downloads their sources, Skip leaves them as they are.
	// Immutable.
	//
	// +optional
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="onMissing is immutable: make another ImageBackfill"
	OnMissing pipeline.OnMissing `json:"onMissing,omitempty"`
	// Approves the backfill. It must be equal to the target, which is targetHash of the status.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:Pattern=`^[0-9a-f]{64}$`
	ApprovedHash string `json:"approvedHash,omitempty"`
	// Suspends the backfill while it is true. The change from true to false resumes it, also if it was suspended by failures or
	// by the command line.
	//
	// +optional
	Suspend bool `json:"suspend,omitempty"`
	// Tries the backfill on some images before its approval. The report is in the status.
	//
	// +optional
	Canary *BackfillTrial `json:"canary,omitempty"`
	// How fast and when it runs. It may be changed at any time.
	//
	// +optional
	Pace BackfillPace `json:"pace,omitzero"`
}

// PipelineReference names an ImagePipeline of the namespace.
type PipelineReference struct {
	// Its name.
	//
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name"`
}

// BackfillSelector has conditions for images. A missing one allows every image.
//
// +kubebuilder:validation:MinProperties=1
type BackfillSelector struct {
	// The state.
	//
	// +optional
	// +kubebuilder:validation:Enum=ready;failed
	Status string `json:"status,omitempty"`
	// The code with which the image, or its last reprocessing, has failed.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:Pattern=`^[a-z][a-z0-9_]*$`
	Code string `json:"code,omitempty"`
	// The id of the user whose products have the images.
	//
	// +optional
	// +kubebuilder:validation:Minimum=1
	User int64 `json:"user,omitempty"`
	// Ready images with renditions that were made under this output hash.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:Pattern=`^[0-9a-f]{64}$`
	OutputHash string `json:"outputHash,omitempty"`
	// Images that were last requested before this time.
	//
	// +optional
	RequestedBefore *metav1.Time `json:"requestedBefore,omitempty"`
}

// BackfillTrial asks for a canary.
type BackfillTrial struct {
	// How many random images are tried.
	//
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	Samples int32 `json:"samples"`
}

// BackfillPace says how fast and when a backfill runs.
type BackfillPace struct {
	// The maximum of jobs that have not ended. Default 100.
	//
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10000
	MaxInFlight *int32 `json:"maxInFlight,omitempty"`
	// The maximum of images a second, from 0.01. Default 20.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0.01
	// +kubebuilder:validation:Maximum=1000
	// +kubebuilder:validation:XValidation:rule="self >= 0.01",message="must be at least 0.01"
	Rate *float64 `json:"rate,omitempty"`
	// When it may run, such as "mon-fri 22:00-06:00". Default: at all times.
	//
	// +optional
	// +kubebuilder:validation:MaxItems=20
	// +kubebuilder:validation:items:MaxLength=64
	// +listType=atomic
	Windows []string `json:"windows,omitempty"`
	// The IANA name of the time zone of the windows. Default UTC.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=64
	TimeZone string `json:"timeZone,omitempty"`
	// The percentage of images that may fail before the backfill is suspended. Default 5.
	//
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	FailureThreshold *float64 `json:"failureThreshold,omitempty"`
}

// BackfillStatus is what the controller reports about an ImageBackfill.
type BackfillStatus struct {
	// The generation of the spec that the conditions are about; -1 before the first report.
	//
	// +optional
	// +kubebuilder:default=-1
	ObservedGeneration int64 `json:"observedGeneration"`
	// The name under which the command line has the backfill.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=128
	Backfill string `json:"backfill,omitempty"`
	// proposed, approved, running, complete, failed, superseded or cancelled.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=32
	State string `json:"state,omitempty"`
	// Why the backfill is in this state.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=2048
	Reason string `json:"reason,omitempty"`
	// Who has suspended it: operator or failures.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=32
	Suspended string `json:"suspended,omitempty"`
	// The value of spec.suspend that was applied last.
	//
	// +optional
	SuspendApplied bool `json:"suspendApplied,omitempty"`
	// The hash of the target: what approvedHash must be.
	//
	// +optional
	// +kubebuilder:validation:MaxLength=64
	TargetHash string `json:"targetHash,omitempty"`
	// What the backfill costs, estimated from a sample.
	//
	// +optional
	Plan *BackfillPlan `json:"plan,omitempty"`
	// The report of the canary, if there is one.
	//
	// +optional
	Canary *BackfillCanary `json:"canary,omitempty"`
	// All images; an estimate until the backfill has ended.
	//
	// +optional
	Total int64 `json:"total"`
	// Images that were made.
	//
	// +optional
	Done int64 `json:"done"`
	// Images that clients requested, removed or deleted meanwhile, and with onMissing Skip those whose original is missing.
	//
	// +optional
	Skipped int64 `json:"skipped"`
	// Images that failed.
	//
	// +optional
	Failed int64 `json:"failed"`
	// The most frequent codes of failures.
	//
	// +optional
	// +kubebuilder:validation:MaxItems=5
	// +listType=atomic
	FailuresByCode []CodeCount `json:"failuresByCode,omitempty"`
	// When the first image was requested.
	//
	// +optional
	StartedAt *metav1.Time `json:"startedAt,omitempty"`
	// When it will end, at the pace so far.
	//
	// +optional
	ETA *metav1.Time `json:"eta,omitempty"`
	// When it ended.
	//
	// +optional
	EndedAt *metav1.Time `json:"endedAt,omitempty"`
	// Planned, Canaried, Approved, Progressing, Complete, Failed, Superseded, Ready, Reconciling, Stalled.
	//
	// +optional
	// +kubebuilder:validation:MaxItems=16
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// CodeCount counts the failures with one code.
type CodeCount struct {
	// The code.
	//
	// +kubebuilder:validation:MaxLength=64
	Code string `json:"code"`
	// How many.
	Count int64 `json:"count"`
}

// BackfillPlan is an estimate of the cost.
type BackfillPlan struct {
	// How many ids were looked at.
	Sampled int64 `json:"sampled"`
	// Images to make.
	Images BackfillEstimate `json:"images"`
	// Of them, those whose original is not kept.
	//
	// +optional
	WithoutOriginal BackfillEstimate `json:"withoutOriginal,omitzero"`
	// Bytes of sources to download.
	SourceBytes BackfillEstimate `json:"sourceBytes"`
	// Bytes of the renditions that are replaced.
	StoredBytes BackfillEstimate `json:"storedBytes"`
	// How long it takes.
	Seconds int64 `json:"seconds"`
	// Time of codecs, if the report of a canary says it.
	//
	// +optional
	CPUSeconds *BackfillEstimate `json:"cpuSeconds,omitempty"`
	// When the sample was taken.
	PlannedAt metav1.Time `json:"plannedAt"`
}

// BackfillEstimate is an estimated number.
type BackfillEstimate struct {
	// The number.
	Value int64 `json:"value"`
	// Its standard error; 0 if it is exact.
	StandardError int64 `json:"standardError"`
}

// BackfillCanary is the report of a canary.
type BackfillCanary struct {
	// running, complete, or stopped by an approval or the end of the backfill.
	//
	// +kubebuilder:validation:MaxLength=32
	State string `json:"state"`
	// The images that are tried.
	Samples int64 `json:"samples"`
	// Those that were made and compared.
	Done int64 `json:"done"`
	// Those that failed.
	Failed int64 `json:"failed"`
	// Those whose source has changed, which are not compared.
	Changed int64 `json:"changed"`
	// Bytes of the present renditions.
	BytesBefore int64 `json:"bytesBefore"`
	// Bytes of the new ones.
	BytesAfter int64 `json:"bytesAfter"`
	// Mean SSIMULACRA2 score of the present renditions.
	ScoreBefore float64 `json:"scoreBefore"`
	// That of the new ones.
	ScoreAfter float64 `json:"scoreAfter"`
	// Time of the codec for the samples that are done.
	CPUSeconds float64 `json:"cpuSeconds"`
	// The most frequent codes of failures.
	//
	// +optional
	// +kubebuilder:validation:MaxItems=5
	// +listType=atomic
	FailuresByCode []CodeCount `json:"failuresByCode,omitempty"`
	// Samples to look at.
	//
	// +optional
	// +kubebuilder:validation:MaxItems=5
	// +listType=atomic
	Examples []CanaryExample `json:"examples,omitempty"`
}

// CanaryExample is a sample of a report: one rendition before and after.
type CanaryExample struct {
	// The id of the image.
	Image int64 `json:"image"`
	// The URL of the present rendition.
	//
	// +kubebuilder:validation:MaxLength=2048
	Before string `json:"before"`
	// The URL of the new one.
	//
	// +kubebuilder:validation:MaxLength=2048
	After string `json:"after"`
	// Bytes of the present rendition.
	BytesBefore int64 `json:"bytesBefore"`
	// Bytes of the new one.
	BytesAfter int64 `json:"bytesAfter"`
	// Score of the present rendition.
	ScoreBefore float64 `json:"scoreBefore"`
	// Score of the new one.
	ScoreAfter float64 `json:"scoreAfter"`
}

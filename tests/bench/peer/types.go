package main

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

var groupVersion = schema.GroupVersion{Group: "profiling.pyspy.dev", Version: "v1alpha1"}

// Profile has the fields that this operator reads and writes; the resource has more.
type Profile struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   ProfileSpec   `json:"spec"`
	Status ProfileStatus `json:"status,omitempty"`
}

type ProfileSpec struct {
	Target struct {
		PodName string `json:"podName"`
	} `json:"target"`
	Sampling struct {
		Duration metav1.Duration `json:"duration"`
		Rate     int64           `json:"rate"`
	} `json:"sampling"`
	Formats []string `json:"formats,omitempty"`
}

type ProfileStatus struct {
	ObservedGeneration int64              `json:"observedGeneration,omitempty"`
	Phase              string             `json:"phase,omitempty"`
	Reason             string             `json:"reason,omitempty"`
	Message            string             `json:"message,omitempty"`
	StartTime          *metav1.Time       `json:"startTime,omitempty"`
	CompletionTime     *metav1.Time       `json:"completionTime,omitempty"`
	Summary            string             `json:"summary,omitempty"`
	Samples            int64              `json:"samples,omitempty"`
	Targets            []Target           `json:"targets,omitempty"`
	Results            []Result           `json:"results,omitempty"`
	Conditions         []metav1.Condition `json:"conditions,omitempty"`
}

type Target struct {
	PodName  string `json:"podName"`
	PodUID   string `json:"podUID,omitempty"`
	NodeName string `json:"nodeName,omitempty"`
	JobName  string `json:"jobName,omitempty"`
	Phase    string `json:"phase,omitempty"`
}

type Result struct {
	Target          string        `json:"target"`
	Format          string        `json:"format"`
	MediaType       string        `json:"mediaType,omitempty"`
	SizeBytes       int64         `json:"sizeBytes,omitempty"`
	SHA256          string        `json:"sha256,omitempty"`
	ConfigMapKeyRef *ConfigMapKey `json:"configMapKeyRef,omitempty"`
}

type ConfigMapKey struct {
	Name string `json:"name"`
	Key  string `json:"key"`
}

type ProfileList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []Profile `json:"items"`
}

// DeepCopyInto is written out, as a generator would: the cache copies each object that it hands out.
func (p *Profile) DeepCopyInto(to *Profile) {
	*to = *p
	p.ObjectMeta.DeepCopyInto(&to.ObjectMeta)
	to.Spec.Formats = append([]string(nil), p.Spec.Formats...)
	from, status := &p.Status, &to.Status
	status.StartTime, status.CompletionTime = from.StartTime.DeepCopy(), from.CompletionTime.DeepCopy()
	status.Targets = append([]Target(nil), from.Targets...)
	status.Results = append([]Result(nil), from.Results...)
	for i := range status.Results {
		if ref := status.Results[i].ConfigMapKeyRef; ref != nil {
			copied := *ref
			status.Results[i].ConfigMapKeyRef = &copied
		}
	}
	status.Conditions = nil
	for i := range from.Conditions {
		status.Conditions = append(status.Conditions, *from.Conditions[i].DeepCopy())
	}
}

func (p *Profile) DeepCopy() *Profile {
	to := new(Profile)
	p.DeepCopyInto(to)
	return to
}

func (p *Profile) DeepCopyObject() runtime.Object { return p.DeepCopy() }

func (l *ProfileList) DeepCopyObject() runtime.Object {
	to := &ProfileList{TypeMeta: l.TypeMeta, Items: make([]Profile, len(l.Items))}
	l.ListMeta.DeepCopyInto(&to.ListMeta)
	for i := range l.Items {
		l.Items[i].DeepCopyInto(&to.Items[i])
	}
	return to
}

func addToScheme(scheme *runtime.Scheme) error {
	scheme.AddKnownTypeWithName(groupVersion.WithKind("PySpyProfile"), &Profile{})
	scheme.AddKnownTypeWithName(groupVersion.WithKind("PySpyProfileList"), &ProfileList{})
	metav1.AddToGroupVersion(scheme, groupVersion)
	return nil
}

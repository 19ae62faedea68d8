package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

const (
	workers     = 8
	lookAgain   = 5 * time.Second
	resultKey   = "flamegraph.svg"
	resultTexts = 2048 // bytes of the made-up result: no Job of this operator really runs
)

type reconciler struct {
	client.Client
	live   client.Reader // past the cache
	events record.EventRecorder
}

func (r *reconciler) setup(manager ctrl.Manager) error {
	r.events = manager.GetEventRecorderFor("pyspy-peer")
	toProfile := handler.EnqueueRequestsFromMapFunc(func(_ context.Context, o client.Object) []reconcile.Request {
		of := o.GetLabels()
		return []reconcile.Request{{NamespacedName: types.NamespacedName{Namespace: of[labelNamespace], Name: of[labelName]}}}
	})
	return ctrl.NewControllerManagedBy(manager).
		For(&Profile{}).
		Watches(&batchv1.Job{}, toProfile).
		Watches(&corev1.Pod{}, toProfile).
		WithOptions(controller.Options{MaxConcurrentReconciles: workers}).
		Complete(r)
}

func (r *reconciler) Reconcile(ctx context.Context, request ctrl.Request) (ctrl.Result, error) {
	profile := &Profile{}
	if err := r.Get(ctx, request.NamespacedName, profile); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err) // finished, or deleted
	}
	job := &batchv1.Job{}
	err := r.Get(ctx, types.NamespacedName{Namespace: systemNamespace, Name: jobName(profile)}, job)
	switch {
	case apierrors.IsNotFound(err) && profile.Status.Phase == "Running":
		return ctrl.Result{}, r.write(ctx, profile, "Failed", "ProfilerFailed", "the Job is gone")
	case apierrors.IsNotFound(err):
		return r.start(ctx, profile)
	case err != nil:
		return ctrl.Result{}, err
	}
	for _, c := range job.Status.Conditions {
		if c.Status != corev1.ConditionTrue {
			continue
		}
		if c.Type == batchv1.JobComplete {
			return ctrl.Result{}, r.complete(ctx, profile, job)
		}
		if c.Type == batchv1.JobFailed {
			return ctrl.Result{}, r.write(ctx, profile, "Failed", "ProfilerFailed", c.Message)
		}
	}
	return ctrl.Result{}, r.follow(ctx, profile, job)
}

func jobName(profile *Profile) string {
	sum := sha256.Sum256([]byte(profile.UID))
	return "pyspy-" + hex.EncodeToString(sum[:10])
}

// start creates the Job once the target runs.
func (r *reconciler) start(ctx context.Context, profile *Profile) (ctrl.Result, error) {
	target := &corev1.Pod{}
	name := types.NamespacedName{Namespace: profile.Namespace, Name: profile.Spec.Target.PodName}
	err := r.live.Get(ctx, name, target, &client.GetOptions{Raw: &metav1.GetOptions{ResourceVersion: "0"}})
	if client.IgnoreNotFound(err) != nil {
		return ctrl.Result{}, err
	}
	if err != nil || target.Status.Phase != corev1.PodRunning {
		return ctrl.Result{RequeueAfter: lookAgain}, nil
	}
	job, err := newJob(profile, target)
	if err != nil {
		return ctrl.Result{}, err
	}
	if err := r.Create(ctx, job); err != nil && !apierrors.IsAlreadyExists(err) {
		return ctrl.Result{}, err
	}
	return ctrl.Result{}, nil
}

// follow writes Running when the Job's Pod runs.
func (r *reconciler) follow(ctx context.Context, profile *Profile, job *batchv1.Job) error {
	if profile.Status.Phase == "Running" {
		return nil
	}
	pods := &corev1.PodList{}
	// From the cache: a scan, since there are few Pods and they leave soon.
	err := r.List(ctx, pods, client.InNamespace(systemNamespace), client.MatchingLabels{labelUID: string(profile.UID)})
	if err != nil || len(pods.Items) == 0 || pods.Items[0].Status.Phase != corev1.PodRunning {
		return err
	}
	profile.Status.Targets = []Target{{
		PodName: profile.Spec.Target.PodName, NodeName: job.Spec.Template.Spec.NodeName, JobName: job.Name, Phase: "Running",
	}}
	now := metav1.Now()
	profile.Status.StartTime = &now
	return r.write(ctx, profile, "Running", "Sampling", "")
}

func (r *reconciler) complete(ctx context.Context, profile *Profile, job *batchv1.Job) error {
	text := strings.Repeat("main (app.py:10);handle (app.py:42) 17\n", resultTexts/39)
	result := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: profile.Namespace, Name: profile.Name + "-" + jobName(profile)[6:12],
			Labels:          map[string]string{labelUID: string(profile.UID)},
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(profile, groupVersion.WithKind("PySpyProfile"))},
		},
		Data: map[string]string{resultKey: text},
	}
	if err := r.Create(ctx, result); err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	sum := sha256.Sum256([]byte(text))
	profile.Status.Samples = 500
	profile.Status.Targets = []Target{{
		PodName: profile.Spec.Target.PodName, NodeName: job.Spec.Template.Spec.NodeName, JobName: job.Name, Phase: "Completed",
	}}
	profile.Status.Results = []Result{{
		Target: profile.Spec.Target.PodName, Format: "flamegraph", MediaType: "image/svg+xml", SizeBytes: int64(len(text)),
		SHA256: hex.EncodeToString(sum[:]), ConfigMapKeyRef: &ConfigMapKey{Name: result.Name, Key: resultKey},
	}}
	return r.write(ctx, profile, "Completed", "Completed", "")
}

// write replaces the status by PUT, as the cheapest form for the API server. A conflict means that the cache is
// behind: its next event brings the profile back.
func (r *reconciler) write(ctx context.Context, profile *Profile, phase, reason, message string) error {
	status := &profile.Status
	status.Phase, status.ObservedGeneration, status.Message = phase, profile.Generation, message
	status.Summary = map[bool]string{true: "1/1", false: "0/1"}[phase == "Completed"]
	if phase != "Running" {
		now := metav1.Now()
		status.CompletionTime = &now
	}
	for kind, holds := range map[string]bool{
		"TargetResolved": true, "Running": phase == "Running", "Complete": phase == "Completed",
		"Failed": phase == "Failed", "Ready": phase == "Completed",
	} {
		condition := metav1.Condition{Type: kind, Status: metav1.ConditionFalse, Reason: reason, Message: message, ObservedGeneration: profile.Generation}
		if holds {
			condition.Status = metav1.ConditionTrue
		}
		meta.SetStatusCondition(&status.Conditions, condition)
	}
	err := r.Status().Update(ctx, profile)
	if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
		return nil
	}
	if err == nil {
		r.events.Event(profile, corev1.EventTypeNormal, phase, fmt.Sprintf("%s: %s", phase, reason))
	}
	return err
}

func newJob(profile *Profile, target *corev1.Pod) (*batchv1.Job, error) {
	task, err := taskText(profile, target)
	if err != nil {
		return nil, err
	}
	labels := map[string]string{
		"app.kubernetes.io/name": "pyspy-runner", "app.kubernetes.io/managed-by": "pyspy-peer",
		labelUID: string(profile.UID), labelName: profile.Name, labelNamespace: profile.Namespace,
	}
	yes, no, one, zero, keep, root := true, false, int32(1), int32(0), int32(600), int64(0)
	seconds, deadline, lifetime := int64(profile.Spec.Sampling.Duration.Seconds()), int64(210), int64(7200)
	deadline += seconds
	limit := resource.MustParse("128Mi")
	mode := int32(0o400)
	spec := corev1.PodSpec{
		NodeName: target.Spec.NodeName, HostPID: true, RestartPolicy: corev1.RestartPolicyNever, ServiceAccountName: "pyspy-runner",
		AutomountServiceAccountToken: &no, EnableServiceLinks: &no,
		Tolerations: []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
		Containers: []corev1.Container{{
			Name: "runner", Image: "localhost/pyspy-runner:dev", Args: []string{"run"},
			Env: []corev1.EnvVar{{Name: "PYSPY_TASK", Value: task}},
			Resources: corev1.ResourceRequirements{
				Requests: corev1.ResourceList{"cpu": resource.MustParse("20m"), "memory": resource.MustParse("48Mi")},
				Limits:   corev1.ResourceList{"cpu": resource.MustParse("500m"), "memory": resource.MustParse("256Mi")},
			},
			SecurityContext: &corev1.SecurityContext{
				RunAsUser: &root, AllowPrivilegeEscalation: &no, ReadOnlyRootFilesystem: &yes,
				Capabilities:   &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}, Add: []corev1.Capability{"SYS_PTRACE"}},
				SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			},
			VolumeMounts: []corev1.VolumeMount{{Name: "token", MountPath: "/var/run/secrets/pyspy", ReadOnly: true}, {Name: "tmp", MountPath: "/tmp"}},
		}},
		Volumes: []corev1.Volume{
			{Name: "token", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{DefaultMode: &mode,
				Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{
					Audience: "pyspy-results", ExpirationSeconds: &lifetime, Path: "token"}}}}}},
			{Name: "tmp", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory, SizeLimit: &limit}}},
		},
	}
	return &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Namespace: systemNamespace, Name: jobName(profile), Labels: labels},
		Spec: batchv1.JobSpec{
			BackoffLimit: &zero, Completions: &one, Parallelism: &one, ActiveDeadlineSeconds: &deadline, TTLSecondsAfterFinished: &keep,
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: spec},
		},
	}, nil
}

// taskText is as large as what a runner needs to be told, an authority's certificate included. It names no upload
// URL: this operator takes no results in.
func taskText(profile *Profile, target *corev1.Pod) (string, error) {
	containers := []map[string]string{}
	for _, c := range target.Status.ContainerStatuses {
		containers = append(containers, map[string]string{"name": c.Name, "id": strings.TrimPrefix(c.ContainerID, "containerd://")})
	}
	text, err := json.Marshal(map[string]any{
		"version": 1, "profileNamespace": profile.Namespace, "profileName": profile.Name, "profileUID": profile.UID,
		"podNamespace": target.Namespace, "podName": target.Name, "podUID": target.UID, "nodeName": target.Spec.NodeName,
		"containers": containers, "formats": profile.Spec.Formats, "maxResultBytes": 1000 << 10,
		"sampling": map[string]any{"durationSeconds": profile.Spec.Sampling.Duration.Seconds(), "rate": profile.Spec.Sampling.Rate},
		"ca":       "-----BEGIN CERTIFICATE-----\n" + strings.Repeat("MIIB", 180) + "\n-----END CERTIFICATE-----\n",
	})
	return string(text), err
}

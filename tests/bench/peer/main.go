// peer is the yardstick of this benchmark: an operator for PySpyProfiles as controller-runtime has it, with the
// settings that a careful engineer would choose: only the API groups in use, caches that hold selected and slimmed
// objects, no client-side rate limit, target Pods read when they are needed.
package main

import (
	"flag"
	"fmt"
	"os"

	batchv1 "k8s.io/api/batch/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
)

const (
	systemNamespace = "pyspy-system"
	labelUID        = "profiling.pyspy.dev/profile-uid"
	labelName       = "profiling.pyspy.dev/profile-name"
	labelNamespace  = "profiling.pyspy.dev/profile-namespace"
	unfinished      = "status.phase!=Completed,status.phase!=Failed,status.phase!=Cancelled"
)

func main() {
	metrics := flag.String("metrics", "127.0.0.1:19880", "address of /metrics")
	flag.Parse()
	ctrl.SetLogger(zap.New())
	if err := run(*metrics); err != nil {
		fmt.Fprintln(os.Stderr, "peer:", err)
		os.Exit(1)
	}
}

func run(metrics string) error {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		corev1.AddToScheme, batchv1.AddToScheme, coordinationv1.AddToScheme, addToScheme,
	} {
		if err := add(scheme); err != nil {
			return err
		}
	}
	config, err := ctrl.GetConfig()
	if err != nil {
		return err
	}
	config.QPS = -1
	unfinishedOnly, err := fields.ParseSelector(unfinished)
	if err != nil {
		return err
	}
	ours, err := labels.Parse(labelUID)
	if err != nil {
		return err
	}
	inSystem := map[string]cache.Config{systemNamespace: {LabelSelector: ours}}
	manager, err := ctrl.NewManager(config, ctrl.Options{
		Scheme:                        scheme,
		LeaderElection:                true,
		LeaderElectionID:              "pyspy-peer",
		LeaderElectionNamespace:       systemNamespace,
		LeaderElectionReleaseOnCancel: true,
		Metrics:                       server.Options{BindAddress: metrics},
		Cache: cache.Options{
			DefaultTransform: cache.TransformStripManagedFields(),
			ByObject: map[client.Object]cache.ByObject{
				&Profile{}:     {Field: unfinishedOnly},
				&batchv1.Job{}: {Namespaces: inSystem, Transform: slimJob},
				&corev1.Pod{}:  {Namespaces: inSystem, Transform: slimPod},
			},
		},
	})
	if err != nil {
		return err
	}
	r := &reconciler{Client: manager.GetClient(), live: manager.GetAPIReader()}
	if err := r.setup(manager); err != nil {
		return err
	}
	return manager.Start(ctrl.SetupSignalHandler())
}

func slimMeta(o *metav1.ObjectMeta) metav1.ObjectMeta {
	return metav1.ObjectMeta{
		Name: o.Name, Namespace: o.Namespace, UID: o.UID, ResourceVersion: o.ResourceVersion,
		Labels: o.Labels, DeletionTimestamp: o.DeletionTimestamp,
	}
}

func slimJob(o any) (any, error) {
	job, ok := o.(*batchv1.Job)
	if !ok {
		return o, nil
	}
	slim := &batchv1.Job{ObjectMeta: slimMeta(&job.ObjectMeta)}
	slim.Status.Conditions = job.Status.Conditions
	slim.Spec.Template.Spec.NodeName = job.Spec.Template.Spec.NodeName
	return slim, nil
}

func slimPod(o any) (any, error) {
	pod, ok := o.(*corev1.Pod)
	if !ok {
		return o, nil
	}
	slim := &corev1.Pod{ObjectMeta: slimMeta(&pod.ObjectMeta)}
	slim.Spec.NodeName = pod.Spec.NodeName
	slim.Status.Phase, slim.Status.ContainerStatuses = pod.Status.Phase, pod.Status.ContainerStatuses
	return slim, nil
}

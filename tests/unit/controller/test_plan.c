/* Every decision about a profile is a row: what is known, and what the plan then says. For every
 * row: once it was carried out and the status came back from the API server, nothing is done twice,
 * and how a profile ended is never changed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "plan_world.h"

struct row {
    const char *name;
    struct world world;
    const char *plan;    /* plan_text() */
    const char *message; /* somewhere in status.message; NULL: not looked at */
};

#define RUNNING_SINCE_2S                                                                           \
    "{status: {phase: Running, startTime: '2026-01-01T00:00:02Z', observedGeneration: 1}}"
#define ENDED_WITHOUT_WORDS(terminated)                                                            \
    "{status: {containerStatuses: [{name: runner, state: {terminated: {" terminated "}}}]}}"
#define WAITS_BECAUSE(state)                                                                       \
    "{status: {phase: Pending, containerStatuses: [{name: runner, state: {waiting: {" state "}}}]" \
    "}}"
#define JOB_FAILED(reason, at)                                                                     \
    "{status: {conditions: [{type: FailureTarget, status: 'True', reason: " reason                 \
    ", message: 'because of it', lastTransitionTime: '2026-01-01T00:" at "Z'}]}}"
#define JOB_COMPLETE(at)                                                                           \
    "{status: {conditions: [{type: Complete, status: 'True', "                                     \
    "lastTransitionTime: '2026-01-01T00:" at "Z'}]}}"
#define NODE_NOT_READY "{status: {conditions: [{type: Ready, status: Unknown}]}}"

#define ENDS(reason)                                                                               \
    "Running=False:" reason " Complete=False:" reason " Failed=True:" reason " Ready="             \
    "False:" reason
#define UNRESOLVED(reason) "TargetResolved=False:" reason
#define FAILS(reason)      "Failed/" reason " " ENDS(reason) " Warning:" reason

static const struct row rows[] = {
    /* gone */
    {"nothing is left", {.now_s = 1}, ""},
    {"deleted while its Job runs", {.job = "{}", .runner = "{}", .now_s = 9}, "delete"},
    {"deleted, its Job was created a moment ago", {.job_expected = true}, "get-job"},
    {"deleted, its Job came to nothing", {.job_expected = true, .asked_job = true}, ""},
    {"deleted, its Job has ended", {.job = JOB_COMPLETE("00:05")}, ""},
    {"deleted, its Job is being deleted",
     {.job = "{metadata: {deletionTimestamp: '2026-01-01T00:00:05Z'}}"},
     ""},
    {"deleted, its runner has handed in", {.job = "{}", .summary = "{}"}, ""},
    {"being deleted: nothing is started",
     {.profile = "{metadata: {deletionTimestamp: '2026-01-01T00:00:01Z'}}", .target = "{}"},
     ""},
    {"being deleted: its Job is stopped",
     {.profile = "{metadata: {deletionTimestamp: '2026-01-01T00:00:01Z'}}", .job = "{}"},
     "delete"},

    /* finished */
    {"completed", {.profile = "{status: {phase: Completed}}", .job = JOB_COMPLETE("00:05")}, ""},
    {"completed, then cancelled: too late",
     {.profile = "{spec: {cancel: true}, status: {phase: Completed}}"},
     ""},
    {"failed, and its Job still runs",
     {.profile = "{status: {phase: Failed}}", .job = "{}"},
     "delete"},
    {"cancelled, and its Job is on its way out",
     {.profile = "{status: {phase: Cancelled}}",
      .job = "{metadata: {deletionTimestamp: '2026-01-01T00:00:05Z'}}"},
     ""},
    {"failed: another summary changes nothing",
     {.profile = "{status: {phase: Failed, reason: DeadlineExceeded}}",
      .job = "{}",
      .summary = "{}"},
     ""},

    /* finished_runner */
    {"done",
     {.profile = RUNNING_SINCE_2S, .job = "{}", .summary = "{}", .now_s = 35},
     "Completed/ TargetResolved=True:TargetFound Running=False:Completed ResultsStored=True:Stored "
     "Complete=True:Completed Failed=False:Completed Ready=True:Completed Normal:Completed"},
    {"done before anybody saw it run",
     {.profile = "{}", .job = "{}", .summary = "{}", .now_s = 35},
     "Completed/ TargetResolved=True:TargetFound Running=False:Completed ResultsStored=True:Stored "
     "Complete=True:Completed Failed=False:Completed Ready=True:Completed Normal:Completed"},
    {"done, and its Job is gone already",
     {.profile = RUNNING_SINCE_2S, .summary = "{}", .now_s = 35},
     "Completed/ TargetResolved=True:TargetFound Running=False:Completed ResultsStored=True:Stored "
     "Complete=True:Completed Failed=False:Completed Ready=True:Completed Normal:Completed"},
    {"done wins over a late cancel",
     {.profile = "{spec: {cancel: true}}", .job = "{}", .summary = "{}", .now_s = 35},
     "Completed/ TargetResolved=True:TargetFound Running=False:Completed ResultsStored=True:Stored "
     "Complete=True:Completed Failed=False:Completed Ready=True:Completed Normal:Completed"},
    {"the target exited, what was sampled is kept",
     {.profile = RUNNING_SINCE_2S,
      .job = "{}",
      .summary = "{reason: ProcessExited, message: exited after 4 s}",
      .now_s = 9},
     "Completed/ProcessExited TargetResolved=True:TargetFound Running=False:ProcessExited "
     "ResultsStored=True:Stored Complete=True:ProcessExited Failed=False:ProcessExited "
     "Ready=True:ProcessExited Normal:Completed",
     "exited after 4 s"},
    {"the target exited before there was anything to keep",
     {.profile = RUNNING_SINCE_2S,
      .job = "{}",
      .summary = "{reason: ProcessExited, message: exited at once, receipt: null}",
      .now_s = 9},
     FAILS("ProcessExited"),
     "exited at once"},
    {"the receipt is forged",
     {.profile = RUNNING_SINCE_2S, .job = "{}", .summary = "{}", .bad_mac = true, .now_s = 35},
     "Failed/StorageUnavailable Running=False:StorageUnavailable "
     "ResultsStored=False:StorageUnavailable Complete=False:StorageUnavailable "
     "Failed=True:StorageUnavailable Ready=False:StorageUnavailable Warning:StorageUnavailable",
     "without a valid receipt"},
    {"there is no receipt",
     {.profile = RUNNING_SINCE_2S, .job = "{}", .summary = "{receipt: null}", .now_s = 35},
     "Failed/StorageUnavailable Running=False:StorageUnavailable "
     "ResultsStored=False:StorageUnavailable Complete=False:StorageUnavailable "
     "Failed=True:StorageUnavailable Ready=False:StorageUnavailable Warning:StorageUnavailable"},
    {"the key of the receipts is not read yet",
     {.profile = RUNNING_SINCE_2S,
      .job = "{}",
      .summary = "{}",
      .receipts_unknown = true,
      .now_s = 35},
     "look=1000"},
    {"the runner could not store it",
     {.profile = RUNNING_SINCE_2S,
      .job = "{}",
      .summary = "{reason: StorageForbidden, message: not yours, receipt: null}",
      .now_s = 35},
     "Failed/StorageForbidden Running=False:StorageForbidden ResultsStored=False:StorageForbidden "
     "Complete=False:StorageForbidden Failed=True:StorageForbidden Ready=False:StorageForbidden "
     "Warning:StorageForbidden",
     "not yours"},
    {"the runner's own reason",
     {.profile = RUNNING_SINCE_2S,
      .job = "{}",
      .summary = "{reason: ProcessNotPython, message: it is nginx, receipt: null}",
      .now_s = 5},
     FAILS("ProcessNotPython"),
     "it is nginx"},
    {"stopped by somebody",
     {.profile = RUNNING_SINCE_2S,
      .job = "{}",
      .summary = "{reason: Cancelled, message: SIGTERM, receipt: null}",
      .now_s = 9},
     FAILS("ProfilerFailed"),
     "stopped from outside: SIGTERM"},
    {"stopped by the Job's deadline",
     {.profile = RUNNING_SINCE_2S,
      .job = JOB_FAILED("DeadlineExceeded", "04:00"),
      .summary = "{reason: Cancelled, message: SIGTERM, receipt: null}",
      .now_s = 241},
     FAILS("DeadlineExceeded"),
     "did not end within its 240 s"},
    {"stopped because the node is drained",
     {.profile = RUNNING_SINCE_2S,
      .job = "{}",
      .runner =
          "{status: {conditions: [{type: DisruptionTarget, status: 'True', message: taint}]}}",
      .summary = "{reason: Cancelled, receipt: null}",
      .now_s = 9},
     FAILS("NodeLost"),
     "removed from node node1: taint"},
    {"stopped as asked",
     {.profile = "{spec: {cancel: true}, status: {phase: Running}}",
      .job = "{}",
      .summary = "{reason: Cancelled, message: cancelled, receipt: null}",
      .now_s = 9},
     "Cancelled/Cancelled " ENDS("Cancelled") " Normal:Cancelled"},

    /* cancelled */
    {"cancelled before anything was done",
     {.profile = "{spec: {cancel: true}}", .now_s = 1},
     "Cancelled/Cancelled " ENDS("Cancelled") " Normal:Cancelled",
     "before sampling began"},
    {"cancelled, its Job was created a moment ago",
     {.profile = "{spec: {cancel: true}}", .job_expected = true, .now_s = 2},
     "get-job"},
    {"cancelled while its Job starts",
     {.profile = "{spec: {cancel: true}}", .job = "{}", .now_s = 2},
     "delete Cancelled/Cancelled " ENDS("Cancelled") " Normal:Cancelled",
     "before sampling began"},
    {"cancelled while it runs",
     {.profile = "{spec: {cancel: true}, status: {phase: Running, startTime: "
                 "'2026-01-01T00:00:02Z'}}",
      .job = "{}",
      .runner = "{}",
      .now_s = 9.5},
     "delete Cancelled/Cancelled " ENDS("Cancelled") " Normal:Cancelled",
     "after 7 s of sampling"},

    /* failed_job */
    {"evicted while it runs",
     {.profile = RUNNING_SINCE_2S,
      .job = "{}",
      .runner =
          "{status: {conditions: [{type: DisruptionTarget, status: 'True', message: taint}]}}",
      .now_s = 9},
     "delete " FAILS("NodeLost"),
     "removed from node node1: taint"},
    {"a disruption that is none",
     {.profile = RUNNING_SINCE_2S,
      .job = "{}",
      .runner = "{status: {conditions: [{type: DisruptionTarget, status: 'False'}]}}",
      .now_s = 9},
     "look=38000"},
    {"the Job's deadline has passed",
     {.profile = RUNNING_SINCE_2S,
      .job = JOB_FAILED("DeadlineExceeded", "04:00"),
      .runner = "{}",
      .now_s = 240},
     FAILS("DeadlineExceeded"),
     "within its 240 s"},
    {"out of memory",
     {.profile = RUNNING_SINCE_2S,
      .job = "{}",
      .runner = ENDED_WITHOUT_WORDS("reason: OOMKilled, exitCode: 137"),
      .now_s = 9},
     "delete " FAILS("ProfilerFailed"),
     "runner.resources.limits.memory"},
    {"ended without a word",
     {.profile = RUNNING_SINCE_2S,
      .job = "{}",
      .runner = ENDED_WITHOUT_WORDS("reason: Error, exitCode: 139"),
      .now_s = 9},
     "delete " FAILS("ProfilerFailed"),
     "without a summary: Error, exit code 139"},
    {"ended with words that are no summary",
     {.profile = RUNNING_SINCE_2S,
      .job = "{}",
      .runner = ENDED_WITHOUT_WORDS("reason: Error, exitCode: 2, message: 'usage: runner'"),
      .now_s = 9},
     "delete " FAILS("ProfilerFailed"),
     "usage: runner"},
    {"ended with the summary of another version",
     {.profile = RUNNING_SINCE_2S, .job = "{}", .summary = "{version: 2}", .now_s = 9},
     "delete " FAILS("ProfilerFailed"),
     "without a summary"},
    {"refused by the kubelet",
     {.profile = "{}",
      .job = "{}",
      .runner = "{status: {phase: Failed, reason: OutOfcpu, message: too much, "
                "containerStatuses: null}}",
      .now_s = 3},
     "delete " FAILS("ProfilerFailed"),
     "node node1 refused the profiling Pod: OutOfcpu: too much"},
    {"the Job failed a moment ago: the Pod's words may still come",
     {.profile = RUNNING_SINCE_2S,
      .job = JOB_FAILED("BackoffLimitExceeded", "00:05"),
      .runner = "{}",
      .now_s = 7},
     "look=8000"},
    {"the Job failed in the API server's future",
     {.profile = RUNNING_SINCE_2S,
      .job = JOB_FAILED("BackoffLimitExceeded", "00:09"),
      .runner = "{}",
      .now_s = 7},
     "look=10000"},
    {"the Job failed and the Pod seems to run: ask",
     {.profile = RUNNING_SINCE_2S,
      .job = JOB_FAILED("BackoffLimitExceeded", "00:05"),
      .runner = "{}",
      .now_s = 15},
     "get-runner"},
    {"the Job failed: is it the node?",
     {.asked_runner = true,
      .profile = RUNNING_SINCE_2S,
      .job = JOB_FAILED("BackoffLimitExceeded", "00:05"),
      .now_s = 15},
     "get-node"},
    {"the Job failed with its node",
     {.asked_runner = true,
      .profile = RUNNING_SINCE_2S,
      .job = JOB_FAILED("BackoffLimitExceeded", "00:05"),
      .node_missing = true,
      .now_s = 15},
     FAILS("NodeLost"),
     "node node1 was lost"},
    {"the Job failed on a node that is well",
     {.asked_runner = true,
      .profile = RUNNING_SINCE_2S,
      .job = JOB_FAILED("BackoffLimitExceeded", "00:05"),
      .node = "{}",
      .now_s = 15},
     FAILS("ProfilerFailed"),
     "BackoffLimitExceeded: because of it"},
    {"the Job is complete, the Pod's words may still come",
     {.profile = RUNNING_SINCE_2S, .job = JOB_COMPLETE("00:35"), .runner = "{}", .now_s = 36},
     "look=9000"},
    {"the Job is complete and its Pod was removed",
     {.asked_runner = true,
      .profile = RUNNING_SINCE_2S,
      .job = JOB_COMPLETE("00:35"),
      .node = "{}",
      .now_s = 50},
     FAILS("ProfilerFailed"),
     "its Pod is gone"},

    /* lost_job */
    {"the Job seems to be gone", {.profile = RUNNING_SINCE_2S, .now_s = 9}, "get-job"},
    {"somebody deleted the Job",
     {.asked_job = true, .profile = RUNNING_SINCE_2S, .now_s = 9},
     FAILS("ProfilerFailed"),
     "deleted by someone else"},
    {"somebody deleted the Job before it started: again",
     {.profile = "{}", .now_s = 9},
     "get-target"},

    /* running */
    {"sampling began",
     {.profile = "{}", .job = "{}", .runner = "{}", .now_s = 3},
     "Running/ TargetResolved=True:TargetFound Running=True:Sampling look=44000 Normal:Running"},
    {"sampling goes on",
     {.profile = RUNNING_SINCE_2S, .job = "{}", .runner = "{}", .now_s = 12},
     "look=35000"},
    {"began after waiting: the reason is over",
     {.profile = "{status: {phase: Pending, reason: ImagePullFailed, message: no such image, "
                 "observedGeneration: 1}}",
      .job = "{}",
      .runner = "{}",
      .now_s = 3},
     "Running/ TargetResolved=True:TargetFound Running=True:Sampling look=44000 Normal:Running"},
    {"it has no start time yet",
     {.profile = "{}",
      .job = "{}",
      .runner = "{status: {containerStatuses: [{name: runner, state: {running: {}}}]}}",
      .now_s = 3},
     "Running/ TargetResolved=True:TargetFound Running=True:Sampling look=45000 Normal:Running"},
    {"late to end: is it the node?",
     {.profile = RUNNING_SINCE_2S, .job = "{}", .runner = "{}", .now_s = 47},
     "get-node"},
    {"late to end on a node that is well",
     {.profile = RUNNING_SINCE_2S, .job = "{}", .runner = "{}", .node = "{}", .now_s = 47},
     "look=15000"},
    {"late to end on a node that is well, and the deadline is near",
     {.profile = RUNNING_SINCE_2S, .job = "{}", .runner = "{}", .node = "{}", .now_s = 117},
     "look=5000"},
    {"late to end on a lost node",
     {.profile = RUNNING_SINCE_2S,
      .job = "{}",
      .runner = "{}",
      .node = NODE_NOT_READY,
      .now_s = 47},
     "delete " FAILS("NodeLost"),
     "node node1 was lost"},
    {"runs too long: is it the node?",
     {.profile = RUNNING_SINCE_2S, .job = "{}", .runner = "{}", .now_s = 122},
     "get-node"},
    {"runs too long on a lost node",
     {.profile = RUNNING_SINCE_2S,
      .job = "{}",
      .runner = "{}",
      .node = NODE_NOT_READY,
      .now_s = 122},
     "delete " FAILS("NodeLost")},
    {"runs too long",
     {.profile = RUNNING_SINCE_2S, .job = "{}", .runner = "{}", .node = "{}", .now_s = 122},
     "delete " FAILS("DeadlineExceeded"),
     "within 120 s of its start"},

    /* starting */
    {"the Job was created and is not in the cache yet",
     {.profile = "{}", .job_expected = true, .target = "{}", .now_s = 2},
     ""},
    {"the Job waits for its Pod", {.profile = "{}", .job = "{}", .now_s = 2}, "look=14000"},
    {"the Job waits, and the deadline is near",
     {.profile = "{spec: {startDeadlineSeconds: 10}}", .job = "{}", .now_s = 2},
     "look=8000"},
    {"the image cannot be pulled",
     {.profile = "{}",
      .job = "{}",
      .runner = WAITS_BECAUSE("reason: ErrImagePull, message: no such host"),
      .now_s = 20},
     "Pending/ImagePullFailed TargetResolved=True:TargetFound look=5000 Warning:ImagePullFailed",
     "ErrImagePull: no such host"},
    {"the first message about the image tells more",
     {.profile =
          "{status: {phase: Pending, reason: ImagePullFailed, message: 'ErrImagePull: gone', "
          "observedGeneration: 1, conditions: [{type: TargetResolved, status: 'True', "
          "reason: TargetFound, message: '', observedGeneration: 1}]}}",
      .job = "{}",
      .runner = WAITS_BECAUSE("reason: ImagePullBackOff, message: Back-off"),
      .now_s = 20},
     "look=5000"},
    {"the image could not be pulled in time",
     {.profile = "{}",
      .job = "{}",
      .runner = WAITS_BECAUSE("reason: InvalidImageName, message: bad"),
      .now_s = 120},
     "delete " FAILS("ImagePullFailed"),
     "InvalidImageName: bad"},
    {"ErrImageNeverPull",
     {.profile = "{}",
      .job = "{}",
      .runner = WAITS_BECAUSE("reason: ErrImageNeverPull"),
      .now_s = 120},
     "delete " FAILS("ImagePullFailed")},
    {"ImageInspectError",
     {.profile = "{}",
      .job = "{}",
      .runner = WAITS_BECAUSE("reason: ImageInspectError"),
      .now_s = 120},
     "delete " FAILS("ImagePullFailed")},
    {"RegistryUnavailable",
     {.profile = "{}",
      .job = "{}",
      .runner = WAITS_BECAUSE("reason: RegistryUnavailable"),
      .now_s = 120},
     "delete " FAILS("ImagePullFailed")},
    {"the Pod seems to have vanished",
     {.profile = RUNNING_SINCE_2S, .job = "{}", .now_s = 9},
     "get-runner"},
    {"the Pod vanished while it ran: is it the node?",
     {.asked_runner = true, .profile = RUNNING_SINCE_2S, .job = "{}", .now_s = 9},
     "get-node"},
    {"the Pod vanished with its node",
     {.asked_runner = true,
      .profile = RUNNING_SINCE_2S,
      .job = "{}",
      .node = NODE_NOT_READY,
      .now_s = 9},
     "delete " FAILS("NodeLost"),
     "on node node1 is gone"},
    {"the Pod vanished",
     {.asked_runner = true, .profile = RUNNING_SINCE_2S, .job = "{}", .node = "{}", .now_s = 9},
     "delete " FAILS("ProfilerFailed"),
     "on node node1 is gone"},
    {"not started after a while: is it the node?",
     {.profile = "{}",
      .job = "{}",
      .runner = WAITS_BECAUSE("reason: ContainerCreating"),
      .now_s = 16},
     "get-node"},
    {"not started, the node is gone",
     {.profile = "{}", .job = "{}", .node_missing = true, .now_s = 16},
     "Pending/NodeNotReady TargetResolved=True:TargetFound look=4000 Warning:NodeNotReady",
     "node node1 does not exist"},
    {"not started, the node is not ready",
     {.profile = "{}", .job = "{}", .node = NODE_NOT_READY, .now_s = 16},
     "Pending/NodeNotReady TargetResolved=True:TargetFound look=4000 Warning:NodeNotReady",
     "node node1 is not ready"},
    {"not started in time, the node is not ready",
     {.profile = "{}", .job = "{}", .node = NODE_NOT_READY, .now_s = 120},
     "delete " FAILS("NodeNotReady"),
     "waited for startDeadlineSeconds (120 s)"},
    {"not started, the node is well",
     {.profile = "{}",
      .job = "{}",
      .runner = WAITS_BECAUSE("reason: ContainerCreating"),
      .node = "{}",
      .now_s = 16},
     "Pending/JobStartTimeout TargetResolved=True:TargetFound look=4000 Warning:JobStartTimeout",
     "not started yet on node node1: ContainerCreating"},
    {"not started, and nobody says why",
     {.profile = "{}",
      .job = "{}",
      .runner = "{status: {phase: Pending, containerStatuses: null}}",
      .node = "{}",
      .now_s = 16},
     "Pending/JobStartTimeout TargetResolved=True:TargetFound look=4000 Warning:JobStartTimeout",
     "not started yet on node node1: no state yet"},
    {"not started in time",
     {.profile = "{}", .job = "{}", .node = "{}", .now_s = 120},
     "delete " FAILS("JobStartTimeout"),
     "within startDeadlineSeconds (120 s)"},

    /* denied */
    {"the namespace says no",
     {.profile = "{}", .denied = true, .now_s = 1},
     FAILS("ProfilingDenied"),
     "namespace shop carries the label profiling.pyspy.dev/deny=true"},
    {"the namespace says no, but it runs already",
     {.profile = RUNNING_SINCE_2S, .job = "{}", .runner = "{}", .denied = true, .now_s = 12},
     "look=35000"},
    {"longer than allowed",
     {.profile = "{}", .config = "limits: {maxDuration: 29s}", .now_s = 1},
     FAILS("ProfilingDenied"),
     "spec.sampling.duration is 30 s; the operator's limits.maxDuration "
     "allows 29 s"},
    {"as long as allowed",
     {.profile = "{}", .config = "limits: {maxDuration: 30s}", .now_s = 1},
     "get-target"},
    {"native frames need SYS_ADMIN",
     {.profile = "{spec: {sampling: {native: true}}}", .now_s = 1},
     FAILS("ProfilingDenied"),
     "runner.joinNamespaces: true"},

    /* start_deadline */
    {"nothing was known until the deadline",
     {.profile = "{}", .now_s = 120},
     FAILS("JobStartTimeout"),
     "within startDeadlineSeconds (120 s)"},
    {"the Job could not be created until the deadline",
     {.profile = "{}", .error = "exceeded quota", .now_s = 120},
     FAILS("JobStartTimeout"),
     "(120 s): exceeded quota"},
    {"what it waited for is the reason",
     {.profile = "{status: {phase: Pending, reason: TargetNotFound, message: no Pod web}}",
      .now_s = 120},
     "Failed/TargetNotFound " UNRESOLVED("TargetNotFound") " " ENDS(
         "TargetNotFound") " Warning:TargetNotFound",
     "no Pod web; waited for startDeadlineSeconds (120 s)"},
    {"its turn never came",
     {.profile = "{status: {phase: Pending, reason: LimitReached, message: waiting its turn}}",
      .jobs = 100,
      .now_s = 121},
     FAILS("LimitReached"),
     "waiting its turn; waited for"},

    /* cluster_limit */
    {"the cluster is busy",
     {.profile = "{}", .jobs = 100, .now_s = 2},
     "Pending/LimitReached look=1000 Warning:LimitReached",
     "limits.maxConcurrent (100)"},
    {"one place is free", {.profile = "{}", .jobs = 99, .now_s = 2}, "get-target"},

    /* find_target */
    {"the target was not looked for", {.profile = "{}", .now_s = 1}, "get-target"},
    {"there is no such Pod",
     {.profile = "{}", .target_missing = true, .now_s = 1},
     "Pending/TargetNotFound " UNRESOLVED("TargetNotFound") " look=1000 Warning:TargetNotFound",
     "Pod web does not exist in namespace shop"},
    {"there is still no such Pod: ever less often",
     {.profile = "{}", .target_missing = true, .now_s = 60},
     "Pending/TargetNotFound " UNRESOLVED("TargetNotFound") " look=10000 Warning:TargetNotFound"},
    {"but at the deadline",
     {.profile = "{}", .target_missing = true, .now_s = 117},
     "Pending/TargetNotFound " UNRESOLVED("TargetNotFound") " look=3000 Warning:TargetNotFound"},
    {"another Pod of that name",
     {.profile = "{spec: {target: {podUID: pod-0}}}", .target = "{}", .now_s = 1},
     "Failed/PodUIDMismatch " UNRESOLVED("PodUIDMismatch") " " ENDS(
         "PodUIDMismatch") " Warning:PodUIDMismatch",
     "Pod web has UID pod-1; spec.target.podUID says pod-0"},
    {"the very Pod",
     {.profile = "{spec: {target: {podUID: pod-1, nodeName: node1}}}", .target = "{}", .now_s = 1},
     "create look=119000 Normal:JobCreated"},
    {"a Pod on another node",
     {.profile = "{spec: {target: {nodeName: node2}}}", .target = "{}", .now_s = 1},
     "Failed/TargetNotFound " UNRESOLVED("TargetNotFound") " " ENDS(
         "TargetNotFound") " Warning:TargetNotFound",
     "runs on node node1; spec.target.nodeName says node2"},

    /* target_denied */
    {"the Pod says no by a label",
     {.profile = "{}",
      .target = "{metadata: {labels: {profiling.pyspy.dev/deny: 'true'}}}",
      .now_s = 1},
     FAILS("ProfilingDenied"),
     "Pod web carries profiling.pyspy.dev/deny"},
    {"the Pod says no by an annotation",
     {.profile = "{}",
      .target = "{metadata: {annotations: {profiling.pyspy.dev/deny: 'true'}}}",
      .now_s = 1},
     FAILS("ProfilingDenied")},
    {"the Pod says yes",
     {.profile = "{}",
      .target = "{metadata: {labels: {profiling.pyspy.dev/deny: 'false'}}}",
      .now_s = 1},
     "create look=119000 Normal:JobCreated"},

    /* target_running */
    {"the Pod has ended well",
     {.profile = "{}", .target = "{status: {phase: Succeeded}}", .now_s = 1},
     "Failed/PodNotRunning " UNRESOLVED("PodNotRunning") " " ENDS(
         "PodNotRunning") " Warning:PodNotRunning",
     "Pod web has ended: phase Succeeded"},
    {"the Pod has failed",
     {.profile = "{}", .target = "{status: {phase: Failed}}", .now_s = 1},
     "Failed/PodNotRunning " UNRESOLVED("PodNotRunning") " " ENDS(
         "PodNotRunning") " Warning:PodNotRunning"},
    {"no such container",
     {.profile = "{spec: {target: {container: nginx}}}", .target = "{}", .now_s = 1},
     "Failed/ContainerNotFound " UNRESOLVED("ContainerNotFound") " " ENDS(
         "ContainerNotFound") " Warning:ContainerNotFound",
     "Pod web has no container \"nginx\""},
    {"the Pod is pending",
     {.profile = "{}", .target = "{status: {phase: Pending}}", .now_s = 8},
     "Pending/PodNotRunning " UNRESOLVED("PodNotRunning") " look=2000 Warning:PodNotRunning",
     "Pod web is in phase Pending, not Running"},
    {"the Pod has no node",
     {.profile = "{}", .target = "{spec: {nodeName: null}}", .now_s = 8},
     "Pending/PodNotRunning " UNRESOLVED("PodNotRunning") " look=2000 Warning:PodNotRunning"},
    {"the container does not run now",
     {.profile = "{spec: {target: {container: app}}}",
      .target = "{status: {containerStatuses: [{name: app, state: {waiting: {}}}]}}",
      .now_s = 1},
     "Pending/PodNotRunning " UNRESOLVED("PodNotRunning") " look=1000 Warning:PodNotRunning",
     "no container of Pod web runs now, looking for app"},

    /* node_limit */
    {"the node is busy",
     {.profile = "{}", .target = "{}", .jobs_on_node1 = 5, .now_s = 2},
     "Pending/LimitReached TargetResolved=True:TargetFound look=1000 Warning:LimitReached",
     "limits.maxConcurrentPerNode (5) profiles run on node node1"},
    {"the node is busy, but this one has its Job",
     {.profile = RUNNING_SINCE_2S,
      .job = "{}",
      .runner = "{}",
      .jobs = 1000,
      .jobs_on_node1 = 1000,
      .now_s = 12},
     "look=35000"},

    /* create_job */
    {"go",
     {.profile = "{}", .target = "{}", .jobs = 99, .jobs_on_node1 = 4, .now_s = 2},
     "create look=118000 Normal:JobCreated"},
};

static void expect_conditions_kept(const struct profile_status *before,
                                   const struct profile_status *now)
{
    const struct condition *a = before->conditions.items, *b = now->conditions.items;
    for (size_t i = 0; i < before->conditions.len; i++)
        for (size_t j = 0; j < now->conditions.len; j++)
            if (str_eq(a[i].type, b[j].type) && str_eq(a[i].status, b[j].status))
                assert_int_equal(a[i].last_transition_ms, b[j].last_transition_ms);
}

/* The plan was carried out: planning again does nothing more. */
static void expect_settled(const struct row *row, struct planned *p)
{
    struct plan first = p->plan;
    if (first.get_target || first.get_node || first.get_job || first.get_runner || !p->in.profile)
        return;
    if (first.write_status)
        world_written(p);
    if (first.create_job)
        p->in.job_expected = true;
    if (first.delete_job)
        p->in.job = NULL;
    plan_profile(p->arena, &p->in, &p->plan);
    const struct plan *again = &p->plan;
    if (again->write_status || again->create_job || again->delete_job || again->event)
        fail_msg("%s: not settled: %s", row->name, plan_text(p->arena, again).ptr);
    if (first.write_status && profile_phase_is_final(first.status.phase)) {
        assert_int_equal(p->profile.status.phase, first.status.phase);
        assert_true(p->profile.status.completion_ms > 0);
    }
}

/* A later look at a finished profile, whatever the world is like then. */
static void expect_final(const struct row *row, struct planned *p)
{
    if (!p->in.profile || !profile_phase_is_final(p->profile.status.phase))
        return;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        struct planned other;
        world_plan(p->arena, &rows[i].world, &other);
        other.in.profile = p->in.profile;
        plan_profile(p->arena, &other.in, &other.plan);
        if (other.plan.write_status || other.plan.create_job || other.plan.event)
            fail_msg("%s, later %s: %s", row->name, rows[i].name,
                     plan_text(p->arena, &other.plan).ptr);
        world_finish(&other);
    }
}

static void rows_say_what_is_done(void **state)
{
    (void)state;
    int failures = 0;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        const struct row *row = &rows[i];
        _cleanup_(arena_destroyp) struct arena *arena = arena_create(0);
        struct planned p;
        world_plan(arena, &row->world, &p);
        struct str text = plan_text(arena, &p.plan);
        bool said = !row->message || str_find(p.plan.status.message, str_of(row->message)) >= 0;
        if (!str_is(text, row->plan) || !said) {
            print_error("%s:\n  expected %s\n  planned  %.*s\n  message  %.*s\n", row->name,
                        row->plan, STR_ARG(text), STR_ARG(p.plan.status.message));
            failures++;
        }
        expect_settled(row, &p);
        expect_final(row, &p);
        world_finish(&p);
    }
    assert_int_equal(failures, 0);
}

/* Never is a Job created where one is or may be, and never is one deleted and created at once. */
static void never_two_jobs(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        _cleanup_(arena_destroyp) struct arena *arena = arena_create(0);
        struct planned p;
        world_plan(arena, &rows[i].world, &p);
        assert_false(p.plan.create_job && (p.in.job || p.in.job_expected || p.plan.delete_job));
        world_finish(&p);
    }
}

static const struct target_status *target_of(const struct planned *p)
{
    assert_int_equal(p->plan.status.targets.len, 1);
    return p->plan.status.targets.items;
}

static void complete_status_has_all(void **state)
{
    (void)state;
    _cleanup_(arena_destroyp) struct arena *arena = arena_create(0);
    struct planned p;
    world_plan(
        arena,
        &(struct world){.profile = RUNNING_SINCE_2S, .job = "{}", .summary = "{}", .now_s = 35},
        &p);
    const struct profile_status *s = &p.plan.status;
    const struct target_status *t = target_of(&p);
    const struct process_status *process = t->processes.items;
    const struct result_status *result = s->results.items;
    assert_true(str_is(s->summary, "1/1"));
    assert_int_equal(s->samples, 2987);
    assert_int_equal(s->start_ms, PLAN_EPOCH_MS + 3000); /* the runner knows better */
    assert_int_equal(s->completion_ms, PLAN_EPOCH_MS + 35000);
    assert_int_equal(s->observed_generation, 1);
    assert_true(str_is(t->pod_name, "web") && str_is(t->pod_uid, "pod-1"));
    assert_true(str_is(t->node_name, "node1") && str_is(t->job_name, "pyspy-1"));
    assert_true(str_is(t->container, "app") && str_is(t->engine, "PySpy"));
    assert_true(str_is(t->engine_reason, "UnsupportedPython"));
    assert_true(str_is(t->engine_message, "Python 3.7.16 is not supported"));
    assert_true(str_is(t->accuracy, "GILOnly") && str_is(t->cost_cpu_seconds, "0.41"));
    assert_int_equal(t->cost_max_memory_bytes, 7340032);
    assert_int_equal(t->processes.len, 1);
    assert_int_equal(process->host_pid, 31245);
    assert_int_equal(s->results.len, 1);
    assert_true(str_is(result->target, "web") && str_is(result->format, "flamegraph"));
    assert_true(str_is(result->config_map_name, "slow-1") && !result->secret_name.len);
    assert_true(str_is(result->config_map_key, "flamegraph.svg"));
    assert_int_equal(result->size_bytes, 48213);
    assert_true(str_is(p.plan.event_note, "2987 samples; 1 result in ConfigMap slow-1"));
    world_finish(&p);

    world_plan(
        arena,
        &(struct world){
            .profile = "{}", .job = "{}", .summary = "{receipt: {kind: Secret}}", .now_s = 35},
        &p);
    result = p.plan.status.results.items;
    assert_true(str_is(result->secret_name, "slow-1") && !result->config_map_name.len);
    assert_true(str_is(result->secret_key, "flamegraph.svg"));
    world_finish(&p);
}

/* What a runner says beyond what the CRD lets in must not make the status unwritable. */
static void summary_is_cut_to_the_schema(void **state)
{
    (void)state;
    _cleanup_(arena_destroyp) struct arena *arena = arena_create(0);
    char command[3000];
    memset(command, 'x', sizeof(command) - 1);
    command[sizeof(command) - 1] = 0;
    const char *summary = arena_printf(
        arena,
        "{container: %.100s, engine: Rust, engineReason: Whim, engineMessage: %.1100s, accuracy: "
        "Perfect, samples: -1, cost: {cpuSeconds: "
        "much, maxMemoryBytes: -1}, processes: [{hostPID: -7, pid: -1, command: %s, "
        "pythonVersion: %.100s, engine: Go, samples: -1, errors: -1, late: -1}, {hostPID: "
        "5000000000}]}",
        command, command, arena_printf(arena, "%.2000s", command), command);
    struct planned p;
    world_plan(
        arena,
        &(struct world){.profile = RUNNING_SINCE_2S, .job = "{}", .summary = summary, .now_s = 35},
        &p);
    assert_true(p.plan.write_status);
    const struct target_status *t = target_of(&p);
    const struct process_status *process = t->processes.items;
    assert_true(p.plan.status.samples >= 0);
    assert_true(t->container.len <= 63 && !t->engine.len && !t->accuracy.len);
    assert_true(!t->engine_reason.len && t->engine_message.len <= 1024 && !process->engine.len);
    assert_true(!t->cost_cpu_seconds.len && t->cost_max_memory_bytes >= 0);
    assert_true(process->command.len <= 1024 && process->command.len >= 256);
    assert_true(process->python_version.len <= 64);
    assert_int_equal(process->host_pid, 0);
    assert_int_equal(process->pid, 0);
    assert_true(process->samples == 0 && process->errors == 0 && process->late == 0);
    assert_int_equal(process[1].host_pid, 0);
    world_finish(&p);
}

/* Long messages of others are cut, not lost. */
static void long_messages_are_cut(void **state)
{
    (void)state;
    _cleanup_(arena_destroyp) struct arena *arena = arena_create(0);
    char text[20000];
    memset(text, 'x', sizeof(text) - 1);
    text[sizeof(text) - 1] = 0;
    const struct world worlds[] = {
        {.profile = RUNNING_SINCE_2S,
         .asked_runner = true,
         .node = "{}",
         .now_s = 30,
         .job = arena_printf(arena,
                             "{status: {conditions: [{type: Failed, status: 'True', reason: R, "
                             "message: %s}]}}",
                             text)},
        {.profile = RUNNING_SINCE_2S,
         .job = "{}",
         .now_s = 30,
         .runner = arena_printf(arena,
                                "{status: {conditions: [{type: DisruptionTarget, status: 'True', "
                                "message: %s}]}}",
                                text)},
        {.profile = RUNNING_SINCE_2S,
         .job = "{}",
         .now_s = 30,
         .runner = arena_printf(arena,
                                "{status: {containerStatuses: [{name: runner, state: {terminated: "
                                "{message: %s}}}]}}",
                                text)},
        {.profile = "{}",
         .job = "{}",
         .now_s = 3,
         .runner = arena_printf(
             arena, "{status: {phase: Failed, message: %s, containerStatuses: null}}", text)},
        {.profile = "{}",
         .job = "{}",
         .now_s = 3,
         .runner = arena_printf(arena,
                                "{status: {containerStatuses: [{name: runner, state: {waiting: "
                                "{reason: ErrImagePull, message: %s}}}]}}",
                                text)},
    };
    for (size_t i = 0; i < ARRAY_SIZE(worlds); i++) {
        struct planned p;
        world_plan(arena, &worlds[i], &p);
        assert_true(p.plan.write_status);
        assert_true(str_find(p.plan.status.message, STR("xxxxxxxxxxxxxxxxxxxxx")) >= 0);
        assert_true(p.plan.status.message.len < 1024);
        world_finish(&p);
    }
}

static void conditions_keep_their_time(void **state)
{
    (void)state;
    _cleanup_(arena_destroyp) struct arena *arena = arena_create(0);
    const char *profile =
        "{metadata: {generation: 2}, status: {phase: Pending, reason: PodNotRunning, "
        "message: m, observedGeneration: 1, conditions: [{type: TargetResolved, status: 'False', "
        "reason: PodNotRunning, message: m, lastTransitionTime: '2026-01-01T00:00:01Z', "
        "observedGeneration: 1}]}}";
    struct planned p;
    world_plan(arena, &(struct world){.profile = profile, .target_missing = true, .now_s = 9}, &p);
    const struct condition *c = p.plan.status.conditions.items;
    assert_int_equal(c->last_transition_ms, PLAN_EPOCH_MS + 1000); /* still False */
    assert_int_equal(c->observed_generation, 2);
    assert_true(str_is(c->reason, "TargetNotFound"));
    expect_conditions_kept(&p.profile.status, &p.plan.status);
    world_finish(&p);

    world_plan(arena, &(struct world){.profile = profile, .job = "{}", .runner = "{}", .now_s = 9},
               &p);
    c = p.plan.status.conditions.items;
    assert_true(str_is(c->status, "True"));
    assert_int_equal(c->last_transition_ms, PLAN_EPOCH_MS + 9000);
    world_finish(&p);
}

/* Conditions that others put there, or more than we know, are neither lost nor overrun. */
static void foreign_conditions_stay(void **state)
{
    (void)state;
    _cleanup_(arena_destroyp) struct arena *arena = arena_create(0);
    struct planned p;
    world_plan(arena,
               &(struct world){
                   .profile = "{status: {phase: Pending, conditions: [{type: A, status: 'True'}, "
                              "{type: B, status: 'True'}, {type: C, status: 'True'}, "
                              "{type: D, status: 'True'}, {type: E, status: 'True'}, "
                              "{type: F, status: 'True'}, {type: G, status: 'True'}, "
                              "{type: H, status: 'True'}, {type: I, status: 'True'}]}, "
                              "spec: {cancel: true}}",
                   .now_s = 9},
               &p);
    assert_true(p.plan.write_status);
    const struct condition *c = p.plan.status.conditions.items;
    bool complete = false;
    for (size_t i = 0; i < p.plan.status.conditions.len; i++)
        complete = complete || str_is(c[i].type, "Failed");
    assert_true(complete); /* what ends the profile is always told */
    world_finish(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_say_what_is_done),   cmocka_unit_test(never_two_jobs),
        cmocka_unit_test(complete_status_has_all), cmocka_unit_test(summary_is_cut_to_the_schema),
        cmocka_unit_test(long_messages_are_cut),   cmocka_unit_test(conditions_keep_their_time),
        cmocka_unit_test(foreign_conditions_stay),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

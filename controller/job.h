/* The Job of a profile: its name, and the JSON that is sent to the API server. Pure: no I/O. */
#pragma once

#include "api/task.h"
#include "api/workload.h"
#include "controller/config.h"

#define JOB_NAME_MAX 64

/* Deterministic from both UIDs, so that creating it twice is harmless: "pyspy-" and 20 hex digits.
 */
void job_name(struct str profile_uid, struct str pod_uid, char ret[static JOB_NAME_MAX]);

/* Which containers of the target the runner shall try, in order. ERR_NOT_FOUND: no container of
 * that name in the Pod; ERR_CONFLICT: it has none that runs now. */
int job_containers(struct arena *arena, const struct target_spec *target, const struct pod *pod,
                   struct json_array *ret, struct str *ret_runtime, struct err *err);

/* The Job as JSON. ca: PEM of the result endpoint. */
int job_render(struct buf *out, const struct config *config, const struct pyspyprofile *profile,
               const struct pod *pod, struct str ca, struct err *err);

/* Seconds after its start at which the Job is ended, whatever happens. */
int64_t job_active_deadline_s(const struct profile_spec *spec);

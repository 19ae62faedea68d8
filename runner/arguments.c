#include "runner/pyspy.h"

/* From 3.11 on an interpreter keeps the kernel's IDs of its threads. */
static bool knows_thread_ids(struct str version)
{
    struct str rest = version;
    int64_t major, minor;
    return str_to_i64(str_cut(&rest, '.'), 0, 99, &major) == 0 &&
           str_to_i64(str_cut(&rest, '.'), 0, 999, &minor) == 0 &&
           (major > 3 || (major == 3 && minor >= 11));
}

int pyspy_check_options(const struct sampling_spec *sampling, const struct pyspy_request *request,
                        struct outcome *ret)
{
    if (sampling->engine == ENGINE_NATIVE && sampling->native) {
        outcome_set(
            ret, REASON_PROFILER_FAILED,
            "sampling.native: only py-spy reads native stacks; use sampling.engine: Auto or "
            "PySpy");
        return -1;
    }
    if (sampling->native && sampling->nonblocking) {
        outcome_set(ret, REASON_PROFILER_FAILED,
                    "sampling.native: native stacks are read while the process is paused; that and "
                    "sampling.nonblocking exclude each other");
        return -1;
    }
    if (sampling->native && !request->own_namespace) {
        outcome_set(ret, REASON_PERMISSION_DENIED,
                    "sampling.native: py-spy reads native stacks only from within the target's PID "
                    "namespace; set runner.joinNamespaces: true in the operator's configuration, "
                    "which adds SYS_ADMIN to the profiling Jobs");
        return -1;
    }
    if (sampling->native && request->joined && !knows_thread_ids(request->python)) {
        outcome_set(ret, REASON_UNSUPPORTED_PYTHON,
                    "sampling.native: py-spy reads native stacks in a joined PID namespace only of "
                    "Python 3.11 and later; this is %.*s",
                    STR_ARG(request->python));
        return -1;
    }
    return 0;
}

/* Whether a thread runs, the kernel knows; which of its threads is meant, py-spy finds out only in
 * the target's PID namespace, and of interpreters before 3.11 not reliably even there (Python 3.8,
 * three sleeping threads, namespace joined: 597 of 796 samples were theirs, pausing or not). Where
 * it cannot tell, it counts every sleeping thread as running. Who holds the GIL is known in any
 * case. */
static bool only_gil(const struct sampling_spec *sampling, const struct pyspy_request *request)
{
    if (sampling->gil)
        return true;
    if (sampling->idle || sampling->native)
        return false;
    return !request->own_namespace || !knows_thread_ids(request->python);
}

bool pyspy_wants_order(const struct sampling_spec *sampling, const struct pyspy_request *request,
                       int threads)
{
    int64_t looks = sampling->duration_ms / 1000 * sampling->rate;
    if (!only_gil(sampling, request))
        looks *= threads > 1 ? threads : 1;
    return looks <= PROFILE_SPEEDSCOPE_SAMPLES;
}

void pyspy_make_arguments(struct arena *arena, const char *program,
                          const struct sampling_spec *sampling, const struct pyspy_request *request,
                          struct pyspy_arguments *ret)
{
    bool gil = only_gil(sampling, request);
    size_t n = 0;
    const char **argv = ret->argv;
    memset(ret, 0, sizeof(*ret));
    argv[n++] = program;
    argv[n++] = "record";
    argv[n++] = "--pid";
    argv[n++] = arena_printf(arena, "%d", (int)request->pid);
    argv[n++] = "--duration";
    argv[n++] = arena_printf(arena, "%lld", (long long)(sampling->duration_ms / 1000));
    argv[n++] = "--rate";
    argv[n++] = arena_printf(arena, "%lld", (long long)sampling->rate);
    argv[n++] = "--format";
    argv[n++] = request->ordered ? "speedscope" : "raw";
    argv[n++] = "--output";
    argv[n++] = arena_printf(arena, "/proc/self/fd/%d", PYSPY_OUTPUT_FD);
    if (request->subprocesses)
        argv[n++] = "--subprocesses";
    if (sampling->threads)
        argv[n++] = "--threads";
    if (sampling->functions)
        argv[n++] = "--function";
    if (gil)
        argv[n++] = "--gil";
    if (sampling->idle)
        argv[n++] = "--idle";
    /* Pausing the target costs it time, and it may be left stopped when py-spy dies; so only for
     * what cannot be had otherwise. */
    argv[n++] = sampling->native ? "--native" : "--nonblocking";
    ret->accuracy = gil ? "GILOnly" : sampling->idle ? "IdleCounted" : "Full";
}

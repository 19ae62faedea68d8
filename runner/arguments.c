#include "runner/pyspy.h"

int pyspy_check_options(const struct sampling_spec *sampling, bool own_namespace,
                        struct outcome *ret)
{
    if (sampling->engine == ENGINE_NATIVE) {
        outcome_set(ret, REASON_PROFILER_FAILED,
                    "sampling.engine: Native is not in this version; use Auto or PySpy");
        return -1;
    }
    if (sampling->native && sampling->nonblocking) {
        outcome_set(ret, REASON_PROFILER_FAILED,
                    "sampling.native: native stacks are read while the process is paused; that and "
                    "sampling.nonblocking exclude each other");
        return -1;
    }
    if (sampling->native && !own_namespace) {
        outcome_set(ret, REASON_PERMISSION_DENIED,
                    "sampling.native: py-spy reads native stacks only from within the target's PID "
                    "namespace; set runner.joinNamespaces: true in the operator's configuration, "
                    "which adds SYS_ADMIN to the profiling Jobs");
        return -1;
    }
    return 0;
}

static bool only_gil(const struct sampling_spec *sampling, bool own_namespace)
{
    return sampling->gil || (!own_namespace && !sampling->idle);
}

bool pyspy_wants_order(const struct sampling_spec *sampling, bool own_namespace, int threads)
{
    int64_t looks = sampling->duration_ms / 1000 * sampling->rate;
    if (!only_gil(sampling, own_namespace))
        looks *= threads > 1 ? threads : 1;
    return looks <= PROFILE_SPEEDSCOPE_SAMPLES;
}

/* Across PID namespaces py-spy cannot match Python's threads to the kernel's, so that every
 * sleeping thread counts as running; who holds the GIL is known in any case. Pausing the target
 * gains nothing but what native stacks need. */
void pyspy_make_arguments(struct arena *arena, const char *program,
                          const struct sampling_spec *sampling, const struct pyspy_request *request,
                          struct pyspy_arguments *ret)
{
    bool gil = only_gil(sampling, request->own_namespace);
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
    argv[n++] = sampling->native ? "--native" : "--nonblocking";
    ret->accuracy = gil ? "GILOnly" : sampling->idle ? "IdleCounted" : "Full";
}

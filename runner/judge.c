/* What the way py-spy ended means. Rows are tried from the top; the first that applies decides. */
#include <signal.h>
#include <sys/wait.h>

#include "runner/pyspy.h"

struct text_rule {
    const char *text; /* found in py-spy's error */
    int reason;
};

static const struct text_rule text_rules[] = {
    {"Unsupported version of Python", REASON_UNSUPPORTED_PYTHON},
    {"Failed to find python version", REASON_UNSUPPORTED_PYTHON},
    {"failed to find version string", REASON_UNSUPPORTED_PYTHON},
    {"unknown pyruntime.gilstate.tstate_current offset", REASON_UNSUPPORTED_PYTHON},
    {"Permission denied", REASON_PERMISSION_DENIED},
    {"Permission Denied", REASON_PERMISSION_DENIED},
    {"Operation not permitted", REASON_PERMISSION_DENIED},
};

static const char *own_words(const struct pyspy_output *o)
{
    return o->error[0] ? o->error : o->last[0] ? o->last : "it said nothing";
}

bool pyspy_was_cut(int wait_status)
{
    return WIFSIGNALED(wait_status) && WTERMSIG(wait_status) == SIGXFSZ;
}

static void judge_size(const struct pyspy_facts *f, struct outcome *ret)
{
    if (f->full)
        outcome_set(ret, REASON_RESULT_TOO_LARGE,
                    "py-spy's profile: %s; the %lld samples that fit "
                    "are kept",
                    f->full, (long long)f->samples);
    else
        outcome_set(ret, REASON_RESULT_TOO_LARGE,
                    "py-spy's profile is larger than %u MiB; sample for a shorter time or at a "
                    "lower rate; the %lld samples that fit are kept",
                    PYSPY_OUTPUT_MAX >> 20, (long long)f->samples);
}

static void judge_samples(const struct pyspy_facts *f, struct outcome *ret)
{
    if (f->output->process_exited)
        outcome_set(ret, REASON_PROCESS_EXITED,
                    "the process ended while it was sampled; %lld samples until then are kept",
                    (long long)f->samples);
    else if (!WIFEXITED(f->wait_status) || WEXITSTATUS(f->wait_status) != 0)
        outcome_set(ret, REASON_PROFILER_FAILED, "py-spy failed after %lld samples: %s",
                    (long long)f->samples, own_words(f->output));
    else
        outcome_set(ret, REASON_NONE, "%s", "");
}

static void judge_signal(const struct pyspy_facts *f, struct outcome *ret)
{
    int signo = WTERMSIG(f->wait_status);
    if (f->timed_out)
        outcome_set(ret, REASON_PROFILER_FAILED,
                    "py-spy did not end in time and was killed; its last line: %s",
                    own_words(f->output));
    else if (signo == SIGKILL)
        outcome_set(ret, REASON_PROFILER_FAILED,
                    "py-spy was killed (signal 9); the Job's memory limit may be too small");
    else
        outcome_set(ret, REASON_PROFILER_FAILED, "py-spy was ended by signal %d (%s)", signo,
                    strsignal(signo));
}

static void judge_failure(const struct pyspy_facts *f, struct outcome *ret)
{
    const char *words = own_words(f->output);
    if (WEXITSTATUS(f->wait_status) == SPAWN_EXIT_SETUP) {
        outcome_set(ret,
                    str_find(str_of(words), STR("Operation not permitted")) >= 0
                        ? REASON_PERMISSION_DENIED
                        : REASON_PROFILER_FAILED,
                    "%s", words);
        return;
    }
    for (size_t i = 0; i < ARRAY_SIZE(text_rules); i++) {
        if (str_find(str_of(words), str_of(text_rules[i].text)) < 0)
            continue;
        bool permission = text_rules[i].reason == REASON_PERMISSION_DENIED;
        outcome_set(ret, text_rules[i].reason, "py-spy: %s%s", words,
                    permission ? " (missing SYS_PTRACE, a security module, or files that only "
                                 "their owner may read: runner.capabilities, DAC_READ_SEARCH)"
                               : "");
        return;
    }
    outcome_set(ret, REASON_PROFILER_FAILED, "py-spy: %s", words);
}

static void judge_silence(const struct pyspy_facts *f, struct outcome *ret)
{
    long long looks = (long long)f->looks;
    if (f->unreadable)
        outcome_set(ret, REASON_PROFILER_FAILED, "py-spy's profile cannot be read: %s",
                    f->unreadable);
    else if (f->output->errors > 0)
        outcome_set(ret, REASON_NO_SAMPLES, "py-spy failed to read the stack in %lld of %lld looks",
                    (long long)f->output->errors, looks);
    else if (str_is(str_of(f->accuracy), "GILOnly"))
        outcome_set(ret, REASON_NO_SAMPLES,
                    "the GIL was free in %lld of %lld looks: idle, or in native code", looks,
                    looks);
    else
        outcome_set(ret, REASON_NO_SAMPLES, "no thread was running in %lld of %lld looks: idle",
                    looks, looks);
}

void pyspy_judge(const struct pyspy_facts *f, struct outcome *ret)
{
    if (f->cancelled)
        outcome_set(ret, REASON_CANCELLED, "cancelled after %lld samples", (long long)f->samples);
    else if (f->target_stopped)
        outcome_set(ret, REASON_PROFILER_FAILED,
                    "the process is stopped (state T); %lld samples until then are kept",
                    (long long)f->samples);
    else if (f->output->started && !f->attached)
        outcome_set(ret, REASON_PROCESS_EXITED, "the process ended before sampling began");
    else if (f->full || pyspy_was_cut(f->wait_status))
        judge_size(f, ret);
    else if (f->samples > 0)
        judge_samples(f, ret);
    else if (f->target_exited || f->output->process_exited)
        outcome_set(ret, REASON_PROCESS_EXITED,
                    "the process ended before there was a sample to keep%s",
                    WIFSIGNALED(f->wait_status) && !f->timed_out
                        ? "; the first of its PID namespace, it took py-spy "
                          "along"
                        : "");
    else if (!WIFEXITED(f->wait_status))
        judge_signal(f, ret);
    else if (WEXITSTATUS(f->wait_status) != 0)
        judge_failure(f, ret);
    else
        judge_silence(f, ret);
}

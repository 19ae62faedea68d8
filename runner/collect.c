/* What a sampler has brought: its profile, and what the way it ended means. */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runner/sample.h"

static void collect_native(struct sampler *s)
{
    struct record_result result = native_result(s->native);
    if (!s->attached) {
        profile_destroy(s->profile);
        s->profile = run_create_profile(s->run, true);
        result = (struct record_result){.exited = s->target_exited};
    }
    struct native_facts facts = {
        .result = &result,
        .samples = profile_samples(s->profile),
        .gil = s->run->task.sampling.gil,
        .cancelled = s->cancelled,
        .timed_out = s->timed_out,
        .target_stopped = s->target_stopped,
        .target_exited = result.exited,
    };
    profile_set_about(s->profile, &(struct profile_about){.rate = s->run->task.sampling.rate});
    native_judge(&facts, &s->outcome);
    s->status.samples = facts.samples;
    s->status.errors = result.counts.errors;
    s->status.late = result.late;
    s->status.held = result.counts.held;
}

static void unmap(struct str *text)
{
    if (text->len)
        munmap((void *)(uintptr_t)text->ptr, text->len);
    *text = STR_NULL;
}

/* Mapped, so that it is in memory once; sealed, so that it stays as long as it is. */
static int map_profile(struct sampler *s, struct str *ret, struct err *err)
{
    struct stat st;
    if (fcntl(s->profile_fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_WRITE) < 0 ||
        fstat(s->profile_fd, &st) < 0)
        return err_set_errno(err, errno, "look at py-spy's profile");
    size_t len = (size_t)st.st_size;
    const char *at =
        len ? mmap(NULL, len, PROT_READ, MAP_PRIVATE | MAP_POPULATE, s->profile_fd, 0) : NULL;
    if (at == MAP_FAILED)
        return err_set_errno(err, errno, "map py-spy's profile");
    close(s->profile_fd);
    s->profile_fd = -1;
    *ret = (struct str){at, len};
    return 0;
}

static int parse_profile(struct sampler *s, struct err *err)
{
    const struct sampling_spec *sampling = &s->run->task.sampling;
    _cleanup_(unmap) struct str mapped = STR_NULL;
    int r = map_profile(s, &mapped, err);
    if (r < 0)
        return r;
    struct str text = mapped;
    /* Without samples raw is empty, but speedscope is not. */
    if (text.len == 0)
        return s->ordered && WIFEXITED(s->wait_status) && WEXITSTATUS(s->wait_status) == 0
                   ? err_set(err, ERR_PROTOCOL, "it is empty")
                   : 0;
    profile_set_about(s->profile, &(struct profile_about){.rate = sampling->rate});
    if (!sampling->command_lines)
        profile_scrub_process_frames(s->profile);
    if (s->ordered)
        return profile_read_speedscope(s->profile, text, err);
    if (pyspy_was_cut(s->wait_status))
        text.len = (size_t)(str_rfind_char(text, '\n') + 1);
    if (sampling->command_lines || !sampling->subprocesses || s->run->chosen.len > 1)
        return profile_read_raw(s->profile, text, err);
    _cleanup_(buf_finish) struct buf clean = BUF_INIT(PYSPY_OUTPUT_MAX);
    scrub_raw(text, &clean);
    unmap(&mapped);
    r = buf_error(&clean, "py-spy's profile", err);
    return r < 0 ? r : profile_read_raw(s->profile, buf_str(&clean), err);
}

void sampler_collect(struct sampler *s)
{
    if (s->native) {
        collect_native(s);
        return;
    }
    if (s->child == 0)
        return; /* never started; the outcome is known */
    const struct sampling_spec *sampling = &s->run->task.sampling;
    struct err err = ERR_INIT;
    int r = parse_profile(s, &err);
    bool full = r == ERR_TOO_LARGE;
    if ((r < 0 && !full) || !s->attached) {
        /* Half-read, or of whoever got the number next. */
        profile_destroy(s->profile);
        s->profile = run_create_profile(s->run, true);
    }
    int64_t ran_ms = s->began_ms ? s->ended_ms - s->began_ms : 0;
    int64_t looks = sampling->rate * ran_ms / 1000;
    int64_t most = sampling->rate * s->duration_ms / 1000;
    struct pyspy_facts facts = {
        .wait_status = s->wait_status,
        .output = &s->output,
        .samples = profile_samples(s->profile),
        .looks = looks < most ? looks : most,
        .accuracy = s->accuracy,
        .unreadable = r < 0 && !full ? err.message : NULL,
        .full = full ? err.message : NULL,
        .cancelled = s->cancelled,
        .timed_out = s->timed_out,
        .target_exited = s->target_exited,
        .target_stopped = s->target_stopped,
        .attached = s->attached,
    };
    pyspy_judge(&facts, &s->outcome);
    s->status.samples = facts.samples;
    s->status.errors = s->output.errors;
    s->status.late = s->output.late;
}

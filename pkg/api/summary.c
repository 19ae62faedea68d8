#include "api/api_internal.h"

#define SUMMARY_VERSION 1

static const struct json_field cost_table[] = {
    {"cpuSeconds", JSON_F_STR, offsetof(struct summary, cpu_seconds)},
    {"maxMemoryBytes", JSON_F_INT, offsetof(struct summary, max_memory_bytes)},
    {NULL},
};

static const struct json_field summary_table[] = {
    {"version", JSON_F_INT, offsetof(struct summary, version), JSON_REQUIRED,
     .min = SUMMARY_VERSION, .max = SUMMARY_VERSION},
    {"reason", JSON_F_ENUM, offsetof(struct summary, reason), .names = profile_reason_names},
    {"message", JSON_F_STR, offsetof(struct summary, message)},
    {"container", JSON_F_STR, offsetof(struct summary, container)},
    {"engine", JSON_F_STR, offsetof(struct summary, engine), .max_len = 32},
    {"engineReason", JSON_F_STR, offsetof(struct summary, engine_reason), .max_len = 32},
    {"engineMessage", JSON_F_STR, offsetof(struct summary, engine_message)},
    {"accuracy", JSON_F_STR, offsetof(struct summary, accuracy), .max_len = 32},
    {"startTime", JSON_F_TIME, offsetof(struct summary, start_ms)},
    {"endTime", JSON_F_TIME, offsetof(struct summary, end_ms)},
    {"samples", JSON_F_INT, offsetof(struct summary, samples)},
    {"errors", JSON_F_INT, offsetof(struct summary, errors)},
    {"late", JSON_F_INT, offsetof(struct summary, late)},
    {"expected", JSON_F_INT, offsetof(struct summary, expected)},
    {"processes", JSON_F_ARRAY, offsetof(struct summary, processes), .table = process_status_table,
     .size = sizeof(struct process_status)},
    {"processesOmitted", JSON_F_INT, offsetof(struct summary, processes_omitted)},
    {"cost", JSON_F_OBJECT, 0, .table = cost_table},
    {"receipt", JSON_F_OBJECT_PTR, offsetof(struct summary, receipt), .table = receipt_table,
     .size = sizeof(struct receipt)},
    {NULL},
};

int summary_decode(struct arena *arena, struct str text, struct summary *ret, struct err *err)
{
    const struct json *tree;
    struct summary summary = {.version = 0};
    int r = json_parse(arena, text, &(struct json_limits){.max_bytes = SUMMARY_MAX}, &tree, err);
    if (r < 0)
        return r;
    r = json_decode(arena, tree, summary_table, "", JSON_UNKNOWN_IGNORE, &summary, err);
    if (r < 0)
        return r;
    *ret = summary;
    return 0;
}

static void write_cut(struct buf *out, const struct summary *s, size_t n_processes,
                      size_t max_message)
{
    struct json_writer w = JSON_WRITER(out);
    const struct process_status *processes = s->processes.items;
    json_begin_object(&w, NULL);
    json_put_int(&w, "version", SUMMARY_VERSION);
    json_put_cstr(&w, "reason", profile_reason_names[s->reason]);
    json_put_str(&w, "message", str_sub(s->message, 0, max_message));
    json_put_str(&w, "container", s->container);
    json_put_str(&w, "engine", s->engine);
    json_put_str(&w, "engineReason", s->engine_reason);
    if (s->engine_message.len)
        json_put_str(&w, "engineMessage", str_sub(s->engine_message, 0, max_message));
    json_put_str(&w, "accuracy", s->accuracy);
    if (s->start_ms)
        json_put_time(&w, "startTime", s->start_ms);
    if (s->end_ms)
        json_put_time(&w, "endTime", s->end_ms);
    json_put_int(&w, "samples", s->samples);
    json_put_int(&w, "errors", s->errors);
    json_put_int(&w, "late", s->late);
    json_put_int(&w, "expected", s->expected);
    json_begin_array(&w, "processes");
    for (size_t i = 0; i < n_processes; i++)
        process_status_write(&w, &processes[i]);
    json_end_array(&w);
    size_t omitted = s->processes.len - n_processes + (size_t)s->processes_omitted;
    if (omitted)
        json_put_int(&w, "processesOmitted", (int64_t)omitted);
    json_begin_object(&w, "cost");
    json_put_str(&w, "cpuSeconds", s->cpu_seconds);
    json_put_int(&w, "maxMemoryBytes", s->max_memory_bytes);
    json_end_object(&w);
    if (s->receipt)
        receipt_write(&w, "receipt", s->receipt);
    json_end_object(&w);
}

/* NUL, which may stand in what a process calls itself, is what our reader refuses: U+FFFD. */
static void replace_nuls(struct buf *json)
{
    for (size_t i = 0; i + 6 <= json->len; i++) {
        if (json->ptr[i] != '\\')
            continue;
        if (memcmp(json->ptr + i, "\\u0000", 6) == 0)
            memcpy(json->ptr + i, "\\ufffd", 6);
        i++; /* what it escapes */
    }
}

void summary_write(struct buf *out, const struct summary *summary)
{
    static const size_t message_caps[] = {1024, 256, 64, 0};
    size_t n = summary->processes.len;
    for (size_t cap = 0; cap < ARRAY_SIZE(message_caps); cap++) {
        for (;; n /= 2) {
            _cleanup_(buf_finish) struct buf text = BUF_INIT(SUMMARY_MAX);
            write_cut(&text, summary, n, message_caps[cap]);
            if (!text.failed) {
                replace_nuls(&text);
                buf_append_str(out, buf_str(&text));
                return;
            }
            if (!n)
                break;
        }
    }
    out->failed = true;
}

#include "api/api_internal.h"

#include <inttypes.h>

#define UPLOAD_VERSION 1
#define TASK_VERSION   1

static const struct json_field container_table[] = {
    {"name", JSON_F_STR, offsetof(struct task_container, name), JSON_REQUIRED},
    {"id", JSON_F_STR, offsetof(struct task_container, id), JSON_REQUIRED, .max_len = 128},
    {NULL},
};

static const struct json_field process_table[] = {
    {"select", JSON_F_ENUM, offsetof(struct process_spec, select), .names = process_select_names},
    {"command", JSON_F_STR, offsetof(struct process_spec, command), .max_len = 4096},
    {"pid", JSON_F_INT, offsetof(struct process_spec, pid)},
    {"hostPID", JSON_F_INT, offsetof(struct process_spec, host_pid)},
    {NULL},
};

static const struct json_field sampling_table[] = {
    {"durationSeconds", JSON_F_INT, offsetof(struct sampling_spec, duration_ms), JSON_REQUIRED,
     .min = 1, .max = 3600},
    {"rate", JSON_F_INT, offsetof(struct sampling_spec, rate), JSON_REQUIRED, .min = 1,
     .max = 1000},
    {"subprocesses", JSON_F_BOOL, offsetof(struct sampling_spec, subprocesses)},
    {"native", JSON_F_BOOL, offsetof(struct sampling_spec, native)},
    {"gil", JSON_F_BOOL, offsetof(struct sampling_spec, gil)},
    {"idle", JSON_F_BOOL, offsetof(struct sampling_spec, idle)},
    {"nonblocking", JSON_F_BOOL, offsetof(struct sampling_spec, nonblocking)},
    {"threads", JSON_F_BOOL, offsetof(struct sampling_spec, threads)},
    {"functions", JSON_F_BOOL, offsetof(struct sampling_spec, functions)},
    {"asyncTasks", JSON_F_BOOL, offsetof(struct sampling_spec, async_tasks)},
    {"commandLines", JSON_F_BOOL, offsetof(struct sampling_spec, command_lines)},
    {"engine", JSON_F_ENUM, offsetof(struct sampling_spec, engine), .names = sampling_engine_names},
    {NULL},
};

const struct json_field task_table[] = {
    {"version", JSON_F_INT, offsetof(struct task, version), JSON_REQUIRED, .min = TASK_VERSION,
     .max = TASK_VERSION},
    {"profileNamespace", JSON_F_STR, offsetof(struct task, profile_namespace), JSON_REQUIRED},
    {"profileName", JSON_F_STR, offsetof(struct task, profile_name), JSON_REQUIRED},
    {"profileUID", JSON_F_STR, offsetof(struct task, profile_uid), JSON_REQUIRED},
    {"podNamespace", JSON_F_STR, offsetof(struct task, pod_namespace), JSON_REQUIRED},
    {"podName", JSON_F_STR, offsetof(struct task, pod_name), JSON_REQUIRED},
    {"podUID", JSON_F_STR, offsetof(struct task, pod_uid), JSON_REQUIRED},
    {"nodeName", JSON_F_STR, offsetof(struct task, node_name)},
    {"runtime", JSON_F_STR, offsetof(struct task, runtime)},
    {"runtimeClass", JSON_F_STR, offsetof(struct task, runtime_class)},
    {"containers", JSON_F_ARRAY, offsetof(struct task, containers), JSON_REQUIRED,
     .table = container_table, .size = sizeof(struct task_container), .max_len = 256},
    {"process", JSON_F_OBJECT, offsetof(struct task, process), .table = process_table},
    {"sampling", JSON_F_OBJECT, offsetof(struct task, sampling), JSON_REQUIRED,
     .table = sampling_table},
    {"formats", JSON_F_STR_ARRAY, offsetof(struct task, format_names), JSON_REQUIRED,
     .max_len = 16},
    {"joinNamespaces", JSON_F_BOOL, offsetof(struct task, join_namespaces)},
    {"maxResultBytes", JSON_F_INT, offsetof(struct task, max_result_bytes), JSON_REQUIRED, .min = 1,
     .max = INT32_MAX},
    {"uploadURL", JSON_F_STR, offsetof(struct task, upload_url), JSON_REQUIRED},
    {"ca", JSON_F_STR, offsetof(struct task, ca), JSON_REQUIRED, .max_len = 16384},
    {NULL},
};

int task_decode(struct arena *arena, struct str text, struct task *ret, struct err *err)
{
    const struct json *tree;
    struct task task = {.version = 0};
    int r = json_parse(arena, text, &(struct json_limits){.max_bytes = TASK_MAX}, &tree, err);
    if (r < 0)
        return r;
    r = json_decode(arena, tree, task_table, "", JSON_UNKNOWN_REFUSE, &task, err);
    if (r < 0)
        return r;
    for (size_t i = 0; i < task.format_names.len; i++) {
        int format = api_enum_find(profile_format_names, task.format_names.items[i]);
        if (format < 0)
            return err_set(err, ERR_INVALID, "formats[%zu]: \"%.*s\" is no known format", i,
                           STR_ARG(task.format_names.items[i]));
        task.formats |= 1u << format;
    }
    if (!task.formats || !task.containers.len)
        return err_set(err, ERR_INVALID, "%s: at least one is needed",
                       task.formats ? "containers" : "formats");
    task.sampling.duration_ms *= 1000; /* seconds in the text, milliseconds in the structure */
    *ret = task;
    return 0;
}

static void write_sampling(struct json_writer *w, const struct sampling_spec *s)
{
    json_begin_object(w, "sampling");
    json_put_int(w, "durationSeconds", s->duration_ms / 1000);
    json_put_int(w, "rate", s->rate);
    json_put_bool(w, "subprocesses", s->subprocesses);
    json_put_bool(w, "native", s->native);
    json_put_bool(w, "gil", s->gil);
    json_put_bool(w, "idle", s->idle);
    json_put_bool(w, "nonblocking", s->nonblocking);
    json_put_bool(w, "threads", s->threads);
    json_put_bool(w, "functions", s->functions);
    json_put_bool(w, "asyncTasks", s->async_tasks);
    json_put_bool(w, "commandLines", s->command_lines);
    json_put_cstr(w, "engine", sampling_engine_names[s->engine]);
    json_end_object(w);
}

static void write_process(struct json_writer *w, const struct process_spec *p)
{
    json_begin_object(w, "process");
    json_put_cstr(w, "select", process_select_names[p->select]);
    if (p->command.len)
        json_put_str(w, "command", p->command);
    if (p->pid)
        json_put_int(w, "pid", p->pid);
    if (p->host_pid)
        json_put_int(w, "hostPID", p->host_pid);
    json_end_object(w);
}

void task_write(struct buf *out, const struct task *task)
{
    struct json_writer w = JSON_WRITER(out);
    json_begin_object(&w, NULL);
    json_put_int(&w, "version", TASK_VERSION);
    json_put_str(&w, "profileNamespace", task->profile_namespace);
    json_put_str(&w, "profileName", task->profile_name);
    json_put_str(&w, "profileUID", task->profile_uid);
    json_put_str(&w, "podNamespace", task->pod_namespace);
    json_put_str(&w, "podName", task->pod_name);
    json_put_str(&w, "podUID", task->pod_uid);
    json_put_str(&w, "nodeName", task->node_name);
    json_put_str(&w, "runtime", task->runtime);
    if (task->runtime_class.len)
        json_put_str(&w, "runtimeClass", task->runtime_class);
    const struct task_container *containers = task->containers.items;
    json_begin_array(&w, "containers");
    for (size_t i = 0; i < task->containers.len; i++) {
        json_begin_object(&w, NULL);
        json_put_str(&w, "name", containers[i].name);
        json_put_str(&w, "id", containers[i].id);
        json_end_object(&w);
    }
    json_end_array(&w);
    write_process(&w, &task->process);
    write_sampling(&w, &task->sampling);
    json_begin_array(&w, "formats");
    for (int i = 0; i < FORMAT_COUNT; i++)
        if (task->formats & 1u << i)
            json_put_cstr(&w, NULL, profile_format_names[i]);
    json_end_array(&w);
    json_put_bool(&w, "joinNamespaces", task->join_namespaces);
    json_put_int(&w, "maxResultBytes", task->max_result_bytes);
    json_put_str(&w, "uploadURL", task->upload_url);
    json_put_str(&w, "ca", task->ca);
    json_end_object(&w);
}

#define UPLOAD_CONTENT_MAX (3u << 20)

/* With content: an upload; without: a receipt. */
const struct json_field upload_file_table[] = {
    {"format", JSON_F_STR, offsetof(struct upload_file, format), JSON_REQUIRED, .max_len = 32},
    {"key", JSON_F_STR, offsetof(struct upload_file, key), JSON_REQUIRED, .max_len = 253},
    {"mediaType", JSON_F_STR, offsetof(struct upload_file, media_type), JSON_REQUIRED,
     .max_len = 128},
    {"encoding", JSON_F_STR, offsetof(struct upload_file, encoding), .max_len = 16},
    {"sizeBytes", JSON_F_INT, offsetof(struct upload_file, size_bytes), JSON_REQUIRED},
    {"sha256", JSON_F_STR, offsetof(struct upload_file, sha256), JSON_REQUIRED, .max_len = 64},
    {"content", JSON_F_STR, offsetof(struct upload_file, content), .max_len = UPLOAD_CONTENT_MAX},
    {NULL},
};

static const struct json_field upload_table[] = {
    {"version", JSON_F_INT, offsetof(struct upload, version), JSON_REQUIRED, .min = UPLOAD_VERSION,
     .max = UPLOAD_VERSION},
    {"files", JSON_F_ARRAY, offsetof(struct upload, files), JSON_REQUIRED,
     .table = upload_file_table, .size = sizeof(struct upload_file), .max_len = UPLOAD_FILES_MAX},
    {NULL},
};

int upload_decode(struct arena *arena, struct str text, struct upload *ret, struct err *err)
{
    const struct json *tree;
    struct upload upload = {.version = 0};
    int r = json_parse(arena, text, NULL, &tree, err);
    if (r < 0)
        return r;
    r = json_decode(arena, tree, upload_table, "", JSON_UNKNOWN_REFUSE, &upload, err);
    if (r < 0)
        return r;
    *ret = upload;
    return 0;
}

void upload_file_write(struct json_writer *w, const struct upload_file *file, bool content)
{
    json_begin_object(w, NULL);
    json_put_str(w, "format", file->format);
    json_put_str(w, "key", file->key);
    json_put_str(w, "mediaType", file->media_type);
    if (file->encoding.len)
        json_put_str(w, "encoding", file->encoding);
    json_put_int(w, "sizeBytes", file->size_bytes);
    json_put_str(w, "sha256", file->sha256);
    if (content)
        json_put_str(w, "content", file->content);
    json_end_object(w);
}

void upload_write(struct buf *out, const struct upload *upload)
{
    struct json_writer w = JSON_WRITER(out);
    const struct upload_file *files = upload->files.items;
    json_begin_object(&w, NULL);
    json_put_int(&w, "version", UPLOAD_VERSION);
    json_begin_array(&w, "files");
    for (size_t i = 0; i < upload->files.len; i++)
        upload_file_write(&w, &files[i], true);
    json_end_array(&w);
    json_end_object(&w);
}

const struct json_field receipt_table[] = {
    {"kind", JSON_F_STR, offsetof(struct receipt, kind), JSON_REQUIRED, .max_len = 16},
    {"name", JSON_F_STR, offsetof(struct receipt, name), JSON_REQUIRED, .max_len = 253},
    {"files", JSON_F_ARRAY, offsetof(struct receipt, files), JSON_REQUIRED,
     .table = upload_file_table, .size = sizeof(struct upload_file), .max_len = UPLOAD_FILES_MAX},
    {"mac", JSON_F_STR, offsetof(struct receipt, mac), JSON_REQUIRED, .max_len = 64},
    {NULL},
};

int receipt_decode(struct arena *arena, const struct json *tree, struct receipt *ret,
                   struct err *err)
{
    struct receipt receipt = {.kind = STR_NULL};
    int r = json_decode(arena, tree, receipt_table, "", JSON_UNKNOWN_REFUSE, &receipt, err);
    if (r < 0)
        return r;
    *ret = receipt;
    return 0;
}

void receipt_write(struct json_writer *w, const char *name, const struct receipt *receipt)
{
    const struct upload_file *files = receipt->files.items;
    json_begin_object(w, name);
    json_put_str(w, "kind", receipt->kind);
    json_put_str(w, "name", receipt->name);
    json_begin_array(w, "files");
    for (size_t i = 0; i < receipt->files.len; i++)
        upload_file_write(w, &files[i], false);
    json_end_array(w);
    json_put_str(w, "mac", receipt->mac);
    json_end_object(w);
}

/* Length before each text: no two different receipts give the same bytes. */
static void mac_text(struct buf *out, struct str s)
{
    buf_appendf(out, "%zu:", s.len);
    buf_append_str(out, s);
}

void receipt_mac_input(struct buf *out, struct str profile_uid, const struct receipt *receipt)
{
    const struct upload_file *files = receipt->files.items;
    mac_text(out, STR("pyspy-receipt-1"));
    mac_text(out, profile_uid);
    mac_text(out, receipt->kind);
    mac_text(out, receipt->name);
    buf_appendf(out, "%zu;", receipt->files.len);
    for (size_t i = 0; i < receipt->files.len; i++) {
        mac_text(out, files[i].format);
        mac_text(out, files[i].key);
        mac_text(out, files[i].media_type);
        mac_text(out, files[i].encoding);
        buf_appendf(out, "%" PRId64 ";", files[i].size_bytes);
        mac_text(out, files[i].sha256);
    }
}

/* A handover is one line of JSON and then the contents, one behind the other, as long as the line
 * says. */
#include "runner/upload/handover.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#define HEAD_MAX     65536
#define HANDOVER_MAX (INT64_C(256) << 20)
#define MESSAGE_MAX  700

static const char *const level_names[] = {"debug", "info", "warn", "error", NULL};

static const struct json_field handover_table[] = {
    {"url", JSON_F_STR, offsetof(struct handover, url), JSON_REQUIRED},
    {"ca", JSON_F_STR, offsetof(struct handover, ca), JSON_REQUIRED, .max_len = 16384},
    {"token", JSON_F_STR, offsetof(struct handover, token), JSON_REQUIRED},
    {"deadlineMs", JSON_F_INT, offsetof(struct handover, deadline_ms), JSON_REQUIRED,
     .max = INT64_MAX / 2},
    {"logLevel", JSON_F_ENUM, offsetof(struct handover, log_level), JSON_REQUIRED,
     .names = level_names},
    {"files", JSON_F_ARRAY, offsetof(struct handover, upload.files), JSON_REQUIRED,
     .table = upload_file_table, .size = sizeof(struct upload_file), .max_len = UPLOAD_FILES_MAX},
    {NULL},
};

static int write_all(int fd, struct str bytes, struct err *err)
{
    while (bytes.len > 0) {
        ssize_t n = write(fd, bytes.ptr, bytes.len);
        if (n < 0 && errno != EINTR)
            return err_set_errno(err, errno, "write to memory");
        if (n > 0)
            bytes = str_sub(bytes, (size_t)n, bytes.len);
    }
    return 0;
}

static void write_head(struct buf *out, const struct handover *h)
{
    struct json_writer w = JSON_WRITER(out);
    const struct upload_file *files = h->upload.files.items;
    json_begin_object(&w, NULL);
    json_put_str(&w, "url", h->url);
    json_put_str(&w, "ca", h->ca);
    json_put_str(&w, "token", h->token);
    json_put_int(&w, "deadlineMs", h->deadline_ms);
    json_put_cstr(&w, "logLevel", level_names[h->log_level]);
    json_begin_array(&w, "files");
    for (size_t i = 0; i < h->upload.files.len; i++)
        upload_file_write(&w, &files[i], false);
    json_end_array(&w);
    json_end_object(&w);
    buf_append_char(out, '\n');
}

static int write_and_seal(int fd, const struct handover *h, struct err *err)
{
    const struct upload_file *files = h->upload.files.items;
    _cleanup_(buf_finish) struct buf head = BUF_INIT(HEAD_MAX);
    int64_t total = 0;
    write_head(&head, h);
    int r = buf_error(&head, "the upload's description", err);
    for (size_t i = 0; i < h->upload.files.len; i++)
        total += (int64_t)files[i].content.len;
    if (r == 0 && total > HANDOVER_MAX - HEAD_MAX)
        r = err_set(err, ERR_TOO_LARGE, "the upload has %lld bytes", (long long)total);
    if (r == 0)
        r = write_all(fd, buf_str(&head), err);
    for (size_t i = 0; r == 0 && i < h->upload.files.len; i++)
        r = write_all(fd, files[i].content, err);
    if (r == 0 &&
        fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) < 0)
        r = err_set_errno(err, errno, "seal the upload");
    return r;
}

int handover_create(const struct handover *h, int *ret, struct err *err)
{
    int fd = memfd_create("upload", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return err_set_errno(err, errno, "memory for the upload");
    int r = write_and_seal(fd, h, err);
    if (r < 0) {
        close(fd);
        return r;
    }
    *ret = fd;
    return 0;
}

int handover_read(struct arena *arena, struct str bytes, struct handover *ret, struct err *err)
{
    const struct json *tree;
    struct handover h = {.upload.version = 1};
    if ((int64_t)bytes.len > HANDOVER_MAX)
        return err_set(err, ERR_INVALID, "the handover is too large");
    struct str head = str_cut(&bytes, '\n');
    int r = json_parse(arena, head, &(struct json_limits){.max_bytes = HEAD_MAX}, &tree, err);
    if (r == 0)
        r = json_decode(arena, tree, handover_table, "", JSON_UNKNOWN_REFUSE, &h, err);
    if (r < 0)
        return err_wrap(err, "the handover");
    struct upload_file *files = h.upload.files.items;
    for (size_t i = 0; i < h.upload.files.len; i++) {
        if (files[i].size_bytes < 0 || (uint64_t)files[i].size_bytes > bytes.len)
            return err_set(err, ERR_INVALID, "files[%zu]: the handover is cut off", i);
        files[i].content = str_sub(bytes, 0, (size_t)files[i].size_bytes);
        bytes = str_sub(bytes, files[i].content.len, bytes.len);
    }
    if (bytes.len > 0)
        return err_set(err, ERR_INVALID, "the handover goes on behind its last file");
    *ret = h;
    return 0;
}

int answer_create(int *ret, struct err *err)
{
    int fd = memfd_create("answer", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0)
        return err_set_errno(err, errno, "memory for the answer");
    if (ftruncate(fd, ANSWER_MAX) < 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) < 0) {
        err_set_errno(err, errno, "memory for the answer");
        close(fd);
        return ERR_IO;
    }
    *ret = fd;
    return 0;
}

int answer_write(int fd, const struct answer *a, struct err *err)
{
    _cleanup_(buf_finish) struct buf out = BUF_INIT(ANSWER_MAX);
    struct json_writer w = JSON_WRITER(&out);
    json_begin_object(&w, NULL);
    json_put_cstr(&w, "reason", profile_reason_names[a->reason]);
    json_put_str(&w, "message", str_sub(a->message, 0, MESSAGE_MAX));
    if (a->receipt)
        receipt_write(&w, "receipt", a->receipt);
    json_end_object(&w);
    int r = buf_error(&out, "the answer", err);
    return r < 0 ? r : write_all(fd, buf_str(&out), err);
}

int answer_text(int fd, struct arena *arena, struct str *ret, struct err *err)
{
    char *text = arena_alloc(arena, ANSWER_MAX);
    size_t len = 0;
    while (len < ANSWER_MAX) {
        ssize_t n = pread(fd, text + len, ANSWER_MAX - len, (off_t)len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_set_errno(err, errno, "read the answer");
        if (n == 0)
            break;
        len += (size_t)n;
    }
    *ret = (struct str){text, strnlen(text, len)};
    return 0;
}

int answer_parse(struct arena *arena, struct str text, struct answer *ret, struct err *err)
{
    const struct json *tree;
    struct receipt receipt;
    int r = json_parse(arena, text, &(struct json_limits){.max_bytes = ANSWER_MAX}, &tree, err);
    if (r < 0)
        return r;
    struct answer a = {.message = str_sub(json_text(json_get(tree, "message")), 0, MESSAGE_MAX)};
    a.reason = api_enum_find(profile_reason_names, json_text(json_get(tree, "reason")));
    if (a.reason < 0)
        return err_set(err, ERR_INVALID, "reason: \"%.*s\" is none",
                       STR_ARG(str_sub(json_text(json_get(tree, "reason")), 0, 64)));
    const struct json *stored = json_get(tree, "receipt");
    if ((a.reason == REASON_NONE) != (stored != NULL))
        return err_set(err, ERR_INVALID, "neither a receipt nor a reason, or both");
    if (stored) {
        r = receipt_decode(arena, stored, &receipt, err);
        if (r < 0)
            return r;
        a.receipt = arena_alloc(arena, sizeof(receipt));
        *a.receipt = receipt;
    }
    *ret = a;
    return 0;
}

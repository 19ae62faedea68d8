#include "controller/store.h"

#include "crypto/digest.h"

static const char *const media_types[FORMAT_COUNT] = {
    [FORMAT_FLAMEGRAPH] = "image/svg+xml",
    [FORMAT_SPEEDSCOPE] = "application/json",
    [FORMAT_RAW] = "text/plain; charset=utf-8",
    [FORMAT_CHROMETRACE] = "application/json",
};

static bool is_gzip(const struct upload_file *f)
{
    return str_is(f->encoding, "gzip");
}

static bool is_key(struct str key)
{
    if (!key.len || key.len > 253 || str_is(key, ".") || str_starts_with(key, STR("..")))
        return false;
    for (size_t i = 0; i < key.len; i++) {
        char c = key.ptr[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
              c == '-' || c == '_' || c == '.'))
            return false;
    }
    return true;
}

/* Size and digest of what will be stored are what the runner says. */
static int check_content(const struct upload_file *f, size_t max, struct err *err)
{
    _cleanup_(buf_finish) struct buf bytes = BUF_INIT(max);
    struct str content = f->content;
    if (is_gzip(f)) {
        int r = crypto_base64_decode(f->content, CRYPTO_BASE64_STANDARD, &bytes, err);
        if (r < 0)
            return err_wrap(err, "content of %.*s", STR_ARG(f->key));
        content = buf_str(&bytes);
    }
    char digest[CRYPTO_SHA256_HEX];
    crypto_sha256_hex(content, digest);
    if (!content.len)
        return err_set(err, ERR_INVALID, "content of %.*s: is empty", STR_ARG(f->key));
    if ((int64_t)content.len != f->size_bytes || !str_is(f->sha256, digest))
        return err_set(err, ERR_INVALID,
                       "content of %.*s: is not what its sizeBytes and sha256 say",
                       STR_ARG(f->key));
    return 0;
}

static int check_file(const struct upload_file *f, const struct store_target *target,
                      unsigned *seen, struct err *err)
{
    int format = api_enum_find(profile_format_names, f->format);
    if (format < 0 || !(target->formats & 1u << format))
        return err_set(err, ERR_INVALID, "format \"%.*s\": the profile did not ask for it",
                       STR_ARG(f->format));
    if (*seen & 1u << format)
        return err_set(err, ERR_INVALID, "format \"%.*s\": given twice", STR_ARG(f->format));
    *seen |= 1u << format;
    if (!is_key(f->key))
        return err_set(err, ERR_INVALID, "key \"%.*s\": letters, digits, '-', '_', '.' expected",
                       STR_ARG(f->key));
    if (f->encoding.len && !is_gzip(f))
        return err_set(err, ERR_INVALID, "encoding \"%.*s\": gzip or none expected",
                       STR_ARG(f->encoding));
    if (!str_is(f->media_type, media_types[format]))
        return err_set(err, ERR_INVALID, "mediaType \"%.*s\": %s expected", STR_ARG(f->media_type),
                       media_types[format]);
    return check_content(f, (size_t)target->max_bytes, err);
}

int store_check(struct arena *arena, struct str body, const struct store_target *target,
                struct upload *ret_upload, struct receipt *ret, struct err *err)
{
    struct upload upload;
    int r = upload_decode(arena, body, &upload, err);
    if (r < 0)
        return r;
    struct upload_file *files = upload.files.items;
    if (!upload.files.len)
        return err_set(err, ERR_INVALID, "files: at least one is needed");
    int64_t total = 0;
    for (size_t i = 0; i < upload.files.len; i++) {
        if (files[i].size_bytes < 0 || files[i].size_bytes > target->max_bytes - total)
            return err_set(err, ERR_TOO_LARGE,
                           "the results are larger than %lld bytes; ask for fewer formats, a lower "
                           "rate or `functions: true`",
                           (long long)target->max_bytes);
        total += files[i].size_bytes;
    }
    unsigned seen = 0;
    for (size_t i = 0; i < upload.files.len; i++) {
        for (size_t j = 0; j < i; j++)
            if (str_eq(files[i].key, files[j].key))
                return err_set(err, ERR_INVALID, "key \"%.*s\": given twice",
                               STR_ARG(files[i].key));
        r = check_file(&files[i], target, &seen, err);
        if (r < 0)
            return r;
    }
    *ret_upload = upload;
    *ret = (struct receipt){.kind = target->secret ? STR("Secret") : STR("ConfigMap"),
                            .name = target->object_name,
                            .files = upload.files};
    return 0;
}

/* ConfigMap: text in data, bytes in binaryData. Secret: everything as base64 in data. */
static void put_member(struct json_writer *w, const char *name, const struct store_target *target,
                       const struct upload *upload, bool binary)
{
    const struct upload_file *files = upload->files.items;
    json_begin_object(w, name);
    for (size_t i = 0; i < upload->files.len; i++) {
        const struct upload_file *f = &files[i];
        if (target->secret && !is_gzip(f)) {
            struct buf text = BUF_INIT(2u << 20);
            crypto_base64_encode(&text, f->content, CRYPTO_BASE64_STANDARD);
            json_put_pair(w, f->key, buf_str(&text));
            if (text.failed)
                w->out->failed = true;
            buf_finish(&text);
        } else if (target->secret || is_gzip(f) == binary) {
            json_put_pair(w, f->key, f->content);
        }
    }
    json_end_object(w);
}

static void put_metadata(struct json_writer *w, const struct store_target *target)
{
    json_begin_object(w, "metadata");
    json_put_str(w, "name", target->object_name);
    json_put_str(w, "namespace", target->namespace_);
    json_begin_object(w, "labels");
    json_put_cstr(w, "app.kubernetes.io/managed-by", "pyspy-controller");
    json_put_str(w, LABEL_PROFILE_UID, target->profile_uid);
    json_end_object(w);
    json_begin_array(w, "ownerReferences");
    json_begin_object(w, NULL);
    json_put_cstr(w, "apiVersion", API_GROUP_VERSION);
    json_put_cstr(w, "kind", API_KIND);
    json_put_str(w, "name", target->profile_name);
    json_put_str(w, "uid", target->profile_uid);
    json_put_bool(w, "controller", true);
    json_end_object(w);
    json_end_array(w);
    json_end_object(w);
}

int store_render_object(struct buf *out, const struct store_target *target,
                        const struct upload *upload, struct err *err)
{
    struct json_writer w = JSON_WRITER(out);
    json_begin_object(&w, NULL);
    json_put_cstr(&w, "apiVersion", "v1");
    json_put_cstr(&w, "kind", target->secret ? "Secret" : "ConfigMap");
    put_metadata(&w, target);
    if (target->secret) {
        json_put_cstr(&w, "type", "Opaque");
        put_member(&w, "data", target, upload, false);
    } else {
        put_member(&w, "data", target, upload, false);
        put_member(&w, "binaryData", target, upload, true);
    }
    json_end_object(&w);
    return buf_error(out, "the object", err);
}

int store_render_patch(struct buf *out, const struct store_target *target,
                       const struct upload *upload, struct err *err)
{
    struct json_writer w = JSON_WRITER(out);
    json_begin_array(&w, NULL);
    json_begin_object(&w, NULL);
    json_put_cstr(&w, "op", "test");
    json_put_cstr(&w, "path", "/metadata/labels/profiling.pyspy.dev~1profile-uid");
    json_put_str(&w, "value", target->profile_uid);
    json_end_object(&w);
    for (int binary = 0; binary <= !target->secret; binary++) {
        json_begin_object(&w, NULL);
        json_put_cstr(&w, "op", "add"); /* replaces what is there */
        json_put_cstr(&w, "path", binary ? "/binaryData" : "/data");
        put_member(&w, "value", target, upload, binary);
        json_end_object(&w);
    }
    json_end_array(&w);
    return buf_error(out, "the patch", err);
}

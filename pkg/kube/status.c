#include "kube/kube_internal.h"

static const struct {
    const char *reason;
    int code;
} by_reason[] = {
    {"NotFound", ERR_NOT_FOUND},
    {"AlreadyExists", ERR_EXISTS},
    {"Conflict", ERR_CONFLICT},
    {"Gone", ERR_GONE},
    {"Expired", ERR_GONE},
    {"Unauthorized", ERR_UNAUTHORIZED},
    {"Forbidden", ERR_FORBIDDEN},
    {"Invalid", ERR_INVALID},
    {"BadRequest", ERR_INVALID},
    {"MethodNotAllowed", ERR_INVALID},
    {"NotAcceptable", ERR_INVALID},
    {"UnsupportedMediaType", ERR_INVALID},
    {"RequestEntityTooLarge", ERR_TOO_LARGE},
    {"TooManyRequests", ERR_THROTTLED},
    {"Timeout", ERR_TIMEOUT},
    {"ServerTimeout", ERR_TIMEOUT},
    {"InternalError", ERR_IO},
    {"ServiceUnavailable", ERR_IO},
};

static const struct {
    int status, code;
} by_status[] = {
    {400, ERR_INVALID},   {401, ERR_UNAUTHORIZED}, {403, ERR_FORBIDDEN}, {404, ERR_NOT_FOUND},
    {405, ERR_INVALID},   {406, ERR_INVALID},      {409, ERR_CONFLICT},  {410, ERR_GONE},
    {413, ERR_TOO_LARGE}, {415, ERR_INVALID},      {422, ERR_INVALID},   {429, ERR_THROTTLED},
    {504, ERR_TIMEOUT},
};

static int code_of(struct str reason, int http_status)
{
    for (size_t i = 0; i < ARRAY_SIZE(by_reason); i++)
        if (str_is(reason, by_reason[i].reason))
            return by_reason[i].code;
    for (size_t i = 0; i < ARRAY_SIZE(by_status); i++)
        if (http_status == by_status[i].status)
            return by_status[i].code;
    if (http_status >= 400 && http_status < 500)
        return ERR_INVALID;
    return http_status >= 500 ? ERR_IO : ERR_PROTOCOL;
}

static bool is_version_too_large(const struct json *status)
{
    const struct json *causes = json_at(status, "details", "causes", NULL);
    for (size_t i = 0; i < json_len(causes); i++)
        if (str_is(json_text(json_get(json_item(causes, i), "reason")), "ResourceVersionTooLarge"))
            return true;
    /* API servers before 1.17 say it in words only. */
    return str_find(json_text(json_get(status, "message")), STR("Too large resource version")) >= 0;
}

int kube_status_error(const struct json *status, int http_status, struct err *err)
{
    if (!http_status)
        http_status = (int)json_int(json_get(status, "code"), 0);
    struct str reason = json_text(json_get(status, "reason"));
    struct str message = json_text(json_get(status, "message"));
    int code = code_of(reason, http_status);
    if (is_version_too_large(status)) {
        code = ERR_GONE; /* the same way out: that version cannot be had */
        reason = STR("ResourceVersionTooLarge");
    }
    int64_t retry_after_s = json_int(json_at(status, "details", "retryAfterSeconds", NULL), 0);
    if (retry_after_s > 0 && http_status >= 500)
        code = ERR_THROTTLED;
    if (!err)
        return code;

    if (message.len)
        err_set(err, code, "%.*s", STR_ARG(message));
    else if (reason.len)
        err_set(err, code, "the API server answered %d %.*s", http_status, STR_ARG(reason));
    else
        err_set(err, code, "the API server answered %d", http_status);
    err->http_status = http_status;
    err->retry_after_ms = retry_after_s > 0 && retry_after_s < 3600 ? retry_after_s * 1000 : 0;
    snprintf(err->reason, sizeof(err->reason), "%.*s", STR_ARG(reason));
    return code;
}

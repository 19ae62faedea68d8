#include "kube/config.h"

#include <unistd.h>

#include "base/alloc.h"
#include "kube/config_internal.h"

const char *kube_config_getenv(const struct kube_config *c, const char *name)
{
    size_t len = strlen(name);
    for (const char *const *e = c->environment; *e; e++)
        if (strncmp(*e, name, len) == 0 && (*e)[len] == '=')
            return *e + len + 1;
    return NULL;
}

void kube_file_value_set(struct kube_file_value *v, struct str bytes)
{
    free(v->bytes);
    v->bytes = str_dup(bytes);
    v->len = bytes.len;
}

void kube_file_value_finish(struct kube_file_value *v)
{
    free(v->path);
    free(v->bytes);
    *v = (struct kube_file_value){0};
}

int kube_file_value_load(struct kube_file_value *v, size_t max, const char *what, struct err *err)
{
    _cleanup_(buf_finish) struct buf bytes = BUF_INIT(max);
    int failed = buf_read_file(&bytes, v->path, err);
    if (failed)
        return err_wrap(err, "%s", what);
    struct str text = str_trim(buf_str(&bytes));
    if (!text.len)
        return err_set(err, ERR_INVALID, "%s: %s is empty", what, v->path);
    kube_file_value_set(v, text);
    return 0;
}

static struct str value_of(const struct kube_file_value *v)
{
    return (struct str){v->bytes, v->len};
}

static void add_header(struct kube_config *c, const char *name, struct str value)
{
    c->headers = xrealloc(c->headers, c->n_headers + 1, sizeof(*c->headers));
    c->headers[c->n_headers++] = (struct http_header){str_of(name), value};
}

/* Makes the headers and the TLS configuration from the parts. */
static void build(struct kube_config *c)
{
    c->tls.ca = value_of(&c->ca);
    c->tls.client_cert = value_of(&c->cert);
    c->tls.client_key = value_of(&c->key);
    c->n_headers = 0;
    buf_clear(&c->authorization);
    if (c->token.len) {
        buf_appendf(&c->authorization, "Bearer %s", c->token.bytes);
    } else if (c->basic) {
        buf_append_cstr(&c->authorization, "Basic ");
        crypto_base64_encode(&c->authorization, str_of(c->basic), CRYPTO_BASE64_STANDARD);
    }
    if (c->authorization.len)
        add_header(c, "Authorization", buf_str(&c->authorization));
    if (c->as_user)
        add_header(c, "Impersonate-User", str_of(c->as_user));
    if (c->as_uid)
        add_header(c, "Impersonate-Uid", str_of(c->as_uid));
    for (size_t i = 0; i < c->n_as_groups; i++)
        add_header(c, "Impersonate-Group", c->as_groups[i]);
    for (size_t i = 0; i < c->n_as_extra; i++) {
        c->headers = xrealloc(c->headers, c->n_headers + 1, sizeof(*c->headers));
        c->headers[c->n_headers++] = c->as_extra[i];
    }
    c->generation++;
}

void kube_config_apply_answer(struct kube_config *c, const struct kube_exec_answer *answer)
{
    kube_file_value_set(&c->token, answer->token);
    if (answer->cert.len) {
        kube_file_value_set(&c->cert, answer->cert);
        kube_file_value_set(&c->key, answer->key);
    }
    build(c);
}

/* Reads one file again. Keeps the old value when that fails: a token that is being rotated, or a
 * volume that is remounted, must not take a working client down. */
static bool reload(struct kube_file_value *v, size_t max)
{
    if (!v->path)
        return false;
    struct kube_file_value fresh = {.path = v->path};
    if (kube_file_value_load(&fresh, max, "", NULL))
        return false;
    if (str_eq(value_of(&fresh), value_of(v))) {
        free(fresh.bytes); /* others hold views of the old bytes until build() */
        return false;
    }
    free(v->bytes);
    v->bytes = fresh.bytes;
    v->len = fresh.len;
    return true;
}

static bool has_files(const struct kube_config *c)
{
    return c->token.path || c->ca.path || c->cert.path;
}

static void reload_files(struct kube_config *c, int64_t now_ms, bool renew)
{
    if (!has_files(c))
        return;
    if (c->loaded_ms < 0)
        c->loaded_ms = now_ms; /* just loaded; only now is a clock known */
    if (!renew && now_ms - c->loaded_ms < KUBE_RELOAD_MS)
        return;
    c->loaded_ms = now_ms;
    bool changed = reload(&c->token, KUBE_MAX_TOKEN);
    changed |= reload(&c->ca, KUBE_MAX_PEM);
    changed |= reload(&c->cert, KUBE_MAX_PEM);
    changed |= reload(&c->key, KUBE_MAX_PEM);
    if (changed)
        build(c);
}

void kube_config_current(const struct kube_config *c, struct kube_credentials *ret)
{
    *ret = (struct kube_credentials){
        .headers = c->headers,
        .n_headers = c->n_headers,
        .tls = &c->tls,
        .generation = c->generation,
    };
}

void kube_config_credentials(struct kube_config *c, struct loop *loop, bool renew,
                             void (*done)(void *context, const struct kube_credentials *credentials,
                                          struct err *err),
                             void *context)
{
    reload_files(c, clock_monotonic_ms(loop_clock(loop)), renew);
    if (c->exec && (renew || !kube_exec_is_fresh(c->exec, clock_wall_ms(loop_clock(loop))))) {
        kube_exec_ask(c->exec, loop, done, context);
        return;
    }
    struct kube_credentials credentials;
    struct err none = ERR_INIT;
    kube_config_current(c, &credentials);
    done(context, &credentials, &none);
}

void kube_config_credentials_cancel(struct kube_config *c, void *context)
{
    if (c->exec)
        kube_exec_cancel(c->exec, context);
}

bool kube_config_renewable(const struct kube_config *c)
{
    return c->exec || has_files(c);
}

uint64_t kube_config_generation(const struct kube_config *c)
{
    return c->generation;
}

const char *kube_config_server(const struct kube_config *c)
{
    return c->server;
}

const char *kube_config_namespace(const struct kube_config *c)
{
    return c->namespace_;
}

const struct tls_config *kube_config_tls(const struct kube_config *c)
{
    return &c->tls;
}

void kube_config_destroy(struct kube_config *c)
{
    if (!c)
        return;
    kube_exec_destroy(c->exec);
    free(c->server);
    free(c->namespace_);
    kube_file_value_finish(&c->ca);
    kube_file_value_finish(&c->cert);
    kube_file_value_finish(&c->key);
    kube_file_value_finish(&c->token);
    free(c->basic);
    free(c->headers);
    buf_finish(&c->authorization);
    arena_destroy(c->arena);
    free(c);
}

/* KUBECONFIG: a list of files. */
static int from_list(struct kube_config *c, const char *list, const char *context, struct err *err)
{
    char *files[64];
    size_t n = 0;
    for (struct str rest = str_of(list); rest.ptr && n < ARRAY_SIZE(files);) {
        struct str file = str_cut(&rest, ':');
        if (file.len)
            files[n++] = arena_cstr(c->arena, file);
    }
    int failed = kube_config_from_files(c, files, n, false, context, err);
    return failed ? err_wrap(err, "KUBECONFIG=%s", list) : 0;
}

static int from_anywhere(struct kube_config *c, const struct kube_config_options *options,
                         struct err *err)
{
    if (options->kubeconfig && options->kubeconfig[0]) {
        char *file = arena_cstr(c->arena, str_of(options->kubeconfig));
        return kube_config_from_files(c, &file, 1, true, options->context, err);
    }
    const char *list = kube_config_getenv(c, "KUBECONFIG");
    if (list && list[0])
        return from_list(c, list, options->context, err);

    int failed = kube_config_in_cluster(c, options->service_account_dir, err);
    if (failed != ERR_NOT_FOUND)
        return failed;
    const char *home = kube_config_getenv(c, "HOME");
    if (!home || !home[0])
        return failed;
    char *file = arena_printf(c->arena, "%s/.kube/config", home);
    failed = kube_config_from_files(c, &file, 1, true, options->context, err);
    if (failed == ERR_NOT_FOUND)
        return err_set(
            err, ERR_NOT_FOUND,
            "no API server is known: no --kubeconfig, no KUBECONFIG, not in a Pod, no %s", file);
    return failed;
}

int kube_config_load(const struct kube_config_options *options, struct kube_config **ret,
                     struct err *err)
{
    static const struct kube_config_options defaults;
    if (!options)
        options = &defaults;
    _cleanup_(kube_config_destroyp) struct kube_config *c = xcalloc(1, sizeof(*c));
    c->arena = arena_create(0);
    c->environment = options->environment ? options->environment : (const char *const *)environ;
    c->loaded_ms = -1;
    c->authorization = BUF_INIT(2 * KUBE_MAX_TOKEN);
    int failed = from_anywhere(c, options, err);
    if (failed)
        return failed;
    build(c);
    *ret = TAKE(c);
    return 0;
}

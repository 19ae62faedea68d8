#include <sys/stat.h>

#include "base/alloc.h"
#include "kube/config_internal.h"
#include "json/decode.h"

struct file {
    const struct json *tree; /* NULL: skipped */
    char *dir; /* what its relative paths start with: ends with a slash, or is empty */
};

struct cluster {
    struct str server, ca_path, ca_data, server_name, proxy_url;
    bool insecure;
    const struct json *extensions;
};

struct user {
    struct str cert_path, cert_data, key_path, key_data, token, token_path, username, password;
    struct str as_user, as_uid;
    struct json_str_array as_groups;
    const struct json *as_extra, *exec, *auth_provider;
};

struct context {
    struct str cluster, user, namespace_;
};

struct exec_env {
    struct str name, value;
};

struct exec {
    struct str api_version, command, install_hint;
    struct json_str_array args;
    struct json_array env;
    bool provide_cluster_info;
    int interactive;
    bool has_interactive;
};

#define TEXT(name_, type, member, max)                                                             \
    {                                                                                              \
        name_, JSON_F_STR, offsetof(type, member), .max_len = (max)                                \
    }

enum { PATH_LEN = 4096, DATA_LEN = 2 * KUBE_MAX_PEM };

static const struct json_field cluster_table[] = {
    TEXT("server", struct cluster, server, PATH_LEN),
    TEXT("certificate-authority", struct cluster, ca_path, PATH_LEN),
    TEXT("certificate-authority-data", struct cluster, ca_data, DATA_LEN),
    TEXT("tls-server-name", struct cluster, server_name, 253),
    TEXT("proxy-url", struct cluster, proxy_url, PATH_LEN),
    {"insecure-skip-tls-verify", JSON_F_BOOL, offsetof(struct cluster, insecure)},
    {"extensions", JSON_F_RAW, offsetof(struct cluster, extensions)},
    {0},
};

static const struct json_field user_table[] = {
    TEXT("client-certificate", struct user, cert_path, PATH_LEN),
    TEXT("client-certificate-data", struct user, cert_data, DATA_LEN),
    TEXT("client-key", struct user, key_path, PATH_LEN),
    TEXT("client-key-data", struct user, key_data, DATA_LEN),
    TEXT("token", struct user, token, KUBE_MAX_TOKEN),
    TEXT("tokenFile", struct user, token_path, PATH_LEN),
    TEXT("username", struct user, username, PATH_LEN),
    TEXT("password", struct user, password, PATH_LEN),
    TEXT("as", struct user, as_user, PATH_LEN),
    TEXT("as-uid", struct user, as_uid, PATH_LEN),
    {"as-groups", JSON_F_STR_ARRAY, offsetof(struct user, as_groups)},
    {"as-user-extra", JSON_F_RAW, offsetof(struct user, as_extra)},
    {"exec", JSON_F_RAW, offsetof(struct user, exec)},
    {"auth-provider", JSON_F_RAW, offsetof(struct user, auth_provider)},
    {0},
};

static const struct json_field context_table[] = {
    TEXT("cluster", struct context, cluster, PATH_LEN),
    TEXT("user", struct context, user, PATH_LEN),
    TEXT("namespace", struct context, namespace_, 253),
    {0},
};

static const struct json_field exec_env_table[] = {
    {"name", JSON_F_STR, offsetof(struct exec_env, name), JSON_REQUIRED},
    TEXT("value", struct exec_env, value, 128 * 1024),
    {0},
};

static const char *const interactive_names[] = {"Never", "IfAvailable", "Always", NULL};

static const struct json_field exec_table[] = {
    {"apiVersion", JSON_F_STR, offsetof(struct exec, api_version), JSON_REQUIRED},
    {"command", JSON_F_STR, offsetof(struct exec, command), JSON_REQUIRED},
    {"args", JSON_F_STR_ARRAY, offsetof(struct exec, args)},
    {"env", JSON_F_ARRAY, offsetof(struct exec, env), .table = exec_env_table,
     .size = sizeof(struct exec_env)},
    {"installHint", JSON_F_STR, offsetof(struct exec, install_hint)},
    {"provideClusterInfo", JSON_F_BOOL, offsetof(struct exec, provide_cluster_info)},
    {"interactiveMode", JSON_F_ENUM, offsetof(struct exec, interactive),
     .present = offsetof(struct exec, has_interactive), .names = interactive_names},
    {0},
};

/* Entry `name` of one of the lists; the first file that has it decides all of it. */
static const struct json *find_named(const struct file *files, size_t n_files, const char *list,
                                     const char *part, struct str name, const struct file **ret)
{
    for (size_t f = 0; f < n_files; f++) {
        const struct json *entries = json_get(files[f].tree, list);
        for (size_t i = 0; i < json_len(entries); i++) {
            const struct json *entry = json_item(entries, i);
            if (!str_eq(json_text(json_get(entry, "name")), name))
                continue;
            *ret = &files[f];
            return json_get(entry, part);
        }
    }
    return NULL;
}

static int decode_named(struct kube_config *c, const struct file *files, size_t n_files,
                        const char *list, const char *part, struct str name,
                        const struct json_field *table, void *target, const struct file **ret,
                        struct err *err)
{
    const struct json *v = find_named(files, n_files, list, part, name, ret);
    if (!v)
        return err_set(err, ERR_INVALID, "%s \"%.*s\" is not in the kubeconfig", part,
                       STR_ARG(name));
    char *path = arena_printf(c->arena, "%s \"%.*s\"", part, STR_ARG(name));
    return json_decode(c->arena, v, table, path, JSON_UNKNOWN_IGNORE, target, err);
}

static char *resolve(const struct file *file, struct str path)
{
    return xasprintf("%s%.*s", path.ptr[0] == '/' ? "" : file->dir, STR_ARG(path));
}

/* `-data` wins over a file. */
static int set_value(struct kube_file_value *v, const struct file *file, struct str data,
                     struct str path, const char *what, struct err *err)
{
    if (data.len) {
        _cleanup_(buf_finish) struct buf bytes = BUF_INIT(KUBE_MAX_PEM);
        int failed = crypto_base64_decode(data, CRYPTO_BASE64_STANDARD, &bytes, err);
        if (failed)
            return err_wrap(err, "%s-data", what);
        kube_file_value_set(v, buf_str(&bytes));
        return 0;
    }
    if (!path.len)
        return 0;
    v->path = resolve(file, path);
    return kube_file_value_load(v, KUBE_MAX_PEM, what, err);
}

static int set_server(struct kube_config *c, struct str server, struct err *err)
{
    if (!str_starts_with(server, STR("https://")) && !str_starts_with(server, STR("http://")))
        return err_set(err, ERR_INVALID, "server \"%.*s\" is no https:// or http:// address",
                       STR_ARG(server));
    while (str_ends_with(server, STR("/")))
        server.len--;
    c->server = str_dup(server);
    return 0;
}

static int set_cluster(struct kube_config *c, const struct cluster *cluster,
                       const struct file *file, struct err *err)
{
    int failed = set_server(c, cluster->server, err);
    if (!failed)
        failed = set_value(&c->ca, file, cluster->ca_data, cluster->ca_path,
                           "certificate-authority", err);
    if (failed)
        return failed;
    if (cluster->insecure && c->ca.len)
        return err_set(err, ERR_INVALID,
                       "insecure-skip-tls-verify and a certificate-authority exclude each other");
    c->tls.insecure = cluster->insecure;
    if (cluster->server_name.len)
        c->tls.server_name = arena_cstr(c->arena, cluster->server_name);
    if (!cluster->proxy_url.len)
        return 0;
    static const char *const schemes[] = {"http://", "https://", "socks5://", "socks5h://"};
    for (size_t i = 0; i < ARRAY_SIZE(schemes); i++)
        if (str_starts_with(cluster->proxy_url, str_of(schemes[i])))
            c->tls.proxy_url = arena_cstr(c->arena, cluster->proxy_url);
    if (!c->tls.proxy_url)
        return err_set(err, ERR_INVALID, "proxy-url \"%.*s\": http, https or socks5 is expected",
                       STR_ARG(cluster->proxy_url));
    return 0;
}

static int set_impersonation(struct kube_config *c, const struct user *user, struct err *err)
{
    bool others = user->as_uid.len || user->as_groups.len || json_len(user->as_extra);
    if (others && !user->as_user.len)
        return err_set(err, ERR_INVALID, "as-uid, as-groups and as-user-extra need \"as\"");
    if (!user->as_user.len)
        return 0;
    c->as_user = arena_cstr(c->arena, user->as_user);
    if (user->as_uid.len)
        c->as_uid = arena_cstr(c->arena, user->as_uid);
    c->as_groups = user->as_groups.items;
    c->n_as_groups = user->as_groups.len;

    if (!user->as_extra)
        return 0;
    if (user->as_extra->type != JSON_OBJECT)
        return err_set(err, ERR_INVALID, "as-user-extra: an object is expected");
    size_t n = 0;
    for (size_t i = 0; i < json_len(user->as_extra); i++)
        n += json_len(user->as_extra->object.members[i].value);
    c->as_extra = arena_array(c->arena, n, sizeof(*c->as_extra));
    for (size_t i = 0; i < json_len(user->as_extra); i++) {
        const struct json_member *m = &user->as_extra->object.members[i];
        _cleanup_(buf_finish) struct buf name = BUF_INIT(4 * PATH_LEN);
        buf_append_cstr(&name, "Impersonate-Extra-");
        buf_append_percent(&name, m->name);
        for (size_t k = 0; k < json_len(m->value); k++)
            c->as_extra[c->n_as_extra++] = (struct http_header){arena_str(c->arena, buf_str(&name)),
                                                                json_text(json_item(m->value, k))};
    }
    return 0;
}

static const struct json *exec_extension(const struct json *extensions)
{
    for (size_t i = 0; i < json_len(extensions); i++) {
        const struct json *e = json_item(extensions, i);
        if (str_is(json_text(json_get(e, "name")), "client.authentication.k8s.io/exec"))
            return json_get(e, "extension");
    }
    return NULL;
}

static int set_exec(struct kube_config *c, const struct json *tree, const struct cluster *cluster,
                    const struct file *file, struct err *err)
{
    struct exec exec = {.interactive = KUBE_INTERACTIVE_IF_AVAILABLE};
    int failed = json_decode(c->arena, tree, exec_table, "exec", JSON_UNKNOWN_IGNORE, &exec, err);
    if (failed)
        return failed;
    bool is_v1 = str_is(exec.api_version, "client.authentication.k8s.io/v1");
    if (!is_v1 && !str_is(exec.api_version, "client.authentication.k8s.io/v1beta1"))
        return err_set(err, ERR_INVALID, "exec.apiVersion \"%.*s\" is not known",
                       STR_ARG(exec.api_version));
    if (is_v1 && !exec.has_interactive)
        return err_set(err, ERR_INVALID, "exec.interactiveMode is required with %.*s",
                       STR_ARG(exec.api_version));
    if (!exec.command.len)
        return err_set(err, ERR_INVALID, "exec.command is empty");

    struct kube_exec_spec spec = {
        .api_version = exec.api_version,
        .install_hint = exec.install_hint,
        .provide_cluster_info = exec.provide_cluster_info,
        .interactive = (enum kube_interactive)exec.interactive,
        .cluster_config = exec_extension(cluster->extensions),
        .n_env = exec.env.len,
    };
    /* Only a command with a slash is a path; others are looked for in PATH. */
    _cleanup_(freep) char *command =
        str_find_char(exec.command, '/') >= 0 ? resolve(file, exec.command) : str_dup(exec.command);
    spec.command = arena_cstr(c->arena, str_of(command));
    spec.args = arena_array(c->arena, exec.args.len + 1, sizeof(*spec.args));
    for (size_t i = 0; i < exec.args.len; i++)
        spec.args[i] = arena_cstr(c->arena, exec.args.items[i]);
    const struct exec_env *env = exec.env.items;
    spec.env = arena_array(c->arena, exec.env.len, sizeof(*spec.env));
    for (size_t i = 0; i < exec.env.len; i++)
        spec.env[i] = (struct kube_env){env[i].name, env[i].value};
    return kube_exec_create(c, &spec, &c->exec, err);
}

static int set_token(struct kube_config *c, const struct user *user, const struct file *file,
                     struct err *err)
{
    if (user->token.len)
        kube_file_value_set(&c->token, user->token);
    if (!user->token_path.len)
        return 0;
    /* With both, the file decides as soon as it can be read. */
    c->token.path = resolve(file, user->token_path);
    struct err ignored;
    int failed = kube_file_value_load(&c->token, KUBE_MAX_TOKEN, "tokenFile",
                                      user->token.len ? &ignored : err);
    return user->token.len ? 0 : failed;
}

static int set_user(struct kube_config *c, const struct user *user, const struct cluster *cluster,
                    const struct file *file, struct err *err)
{
    if (user->auth_provider)
        return err_set(err, ERR_INVALID, "auth-provider was removed from Kubernetes; use exec");
    int failed =
        set_value(&c->cert, file, user->cert_data, user->cert_path, "client-certificate", err);
    if (!failed)
        failed = set_value(&c->key, file, user->key_data, user->key_path, "client-key", err);
    if (!failed && !c->cert.len != !c->key.len)
        failed = err_set(err, ERR_INVALID, "client-certificate and client-key need each other");
    if (!failed)
        failed = set_token(c, user, file, err);
    if (!failed && (user->username.len || user->password.len) && !c->token.len)
        c->basic = xasprintf("%.*s:%.*s", STR_ARG(user->username), STR_ARG(user->password));
    if (!failed)
        failed = set_impersonation(c, user, err);
    /* As client-go: a plugin is not asked where an Authorization header is there without it. */
    bool authorized = c->token.len || c->token.path || c->basic;
    if (!failed && user->exec && !authorized)
        failed = set_exec(c, user->exec, cluster, file, err);
    return failed;
}

static int read_files(struct kube_config *c, char *const *paths, size_t n, bool must_exist,
                      struct file *files, struct err *err)
{
    size_t found = 0;
    for (size_t i = 0; i < n; i++) {
        _cleanup_(buf_finish) struct buf text = BUF_INIT(KUBE_MAX_KUBECONFIG);
        int failed = buf_read_file(&text, paths[i], err);
        if (failed == ERR_NOT_FOUND && !must_exist)
            continue;
        if (failed)
            return failed;
        failed = json_parse_yaml(c->arena, arena_str(c->arena, buf_str(&text)), NULL,
                                 &files[i].tree, err);
        if (failed)
            return err_wrap(err, "%s", paths[i]);
        struct str path = str_of(paths[i]);
        ssize_t slash = str_rfind_char(path, '/');
        files[i].dir = arena_cstr(c->arena, str_sub(path, 0, slash < 0 ? 0 : (size_t)slash + 1));
        found++;
    }
    return found ? 0 : err_set(err, ERR_NOT_FOUND, "there is no such file");
}

static struct str current_context(const struct file *files, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct str name = json_text(json_get(files[i].tree, "current-context"));
        if (name.len)
            return name;
    }
    return STR_NULL;
}

int kube_config_from_files(struct kube_config *c, char *const *paths, size_t n_paths,
                           bool must_exist, const char *context_name, struct err *err)
{
    struct file *files = arena_array(c->arena, n_paths + 1, sizeof(*files));
    int failed = read_files(c, paths, n_paths, must_exist, files, err);
    if (failed)
        return failed;

    struct str name =
        context_name && context_name[0] ? str_of(context_name) : current_context(files, n_paths);
    if (!name.len)
        return err_set(err, ERR_INVALID, "the kubeconfig has no current-context");
    const struct file *file = NULL;
    struct context context = {0};
    failed = decode_named(c, files, n_paths, "contexts", "context", name, context_table, &context,
                          &file, err);
    if (failed)
        return failed;
    c->namespace_ = context.namespace_.len ? str_dup(context.namespace_) : xstrdup("default");

    struct cluster cluster = {0};
    failed = decode_named(c, files, n_paths, "clusters", "cluster", context.cluster, cluster_table,
                          &cluster, &file, err);
    if (!failed)
        failed = set_cluster(c, &cluster, file, err);
    if (failed || !context.user.len)
        return failed;

    struct user user = {0};
    failed = decode_named(c, files, n_paths, "users", "user", context.user, user_table, &user,
                          &file, err);
    return failed ? failed : set_user(c, &user, &cluster, file, err);
}

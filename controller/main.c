#include <getopt.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/log.h"
#include "controller/app.h"

#define NAMESPACE_FILE "/var/run/secrets/kubernetes.io/serviceaccount/namespace"
#define NAMESPACE      "pyspy-system"

static const char usage_text[] =
    "pyspy-controller: turns PySpyProfile resources into profiling Jobs.\n"
    "\n"
    "  --config FILE        configuration (YAML; every key: manifests/base/config.yaml)\n"
    "  --kubeconfig FILE    credentials for the API server [KUBECONFIG, in-cluster,\n"
    "                       ~/.kube/config]\n"
    "  --context NAME       context of the kubeconfig [its current-context]\n"
    "  --namespace NAME     the controller's own namespace, where Jobs run [POD_NAMESPACE,\n"
    "                       the service account's, pyspy-system]\n"
    "  --leader-elect=BOOL  overrides leaderElection.enabled\n"
    "  --log-level LEVEL    overrides log.level: debug, info, warn, error\n"
    "  --log-format FORMAT  overrides log.format: json, logfmt\n"
    "  --version            prints the version\n"
    "  --help               prints this\n";

struct flags {
    const char *config, *kubeconfig, *context, *namespace_;
    const char *leader_elect, *log_level, *log_format;
};

enum {
    FLAG_CONFIG = 256,
    FLAG_KUBECONFIG,
    FLAG_CONTEXT,
    FLAG_NAMESPACE,
    FLAG_LEADER_ELECT,
    FLAG_LOG_LEVEL,
    FLAG_LOG_FORMAT,
    FLAG_VERSION,
    FLAG_HELP
};

static const struct option long_options[] = {
    {"config", required_argument, NULL, FLAG_CONFIG},
    {"kubeconfig", required_argument, NULL, FLAG_KUBECONFIG},
    {"context", required_argument, NULL, FLAG_CONTEXT},
    {"namespace", required_argument, NULL, FLAG_NAMESPACE},
    {"leader-elect", required_argument, NULL, FLAG_LEADER_ELECT},
    {"log-level", required_argument, NULL, FLAG_LOG_LEVEL},
    {"log-format", required_argument, NULL, FLAG_LOG_FORMAT},
    {"version", no_argument, NULL, FLAG_VERSION},
    {"help", no_argument, NULL, FLAG_HELP},
    {NULL, 0, NULL, 0},
};

/* 0: go on; 1: done; 2: wrong. */
static int parse_flags(int argc, char **argv, struct flags *f)
{
    int c;
    while ((c = getopt_long(argc, argv, "h", long_options, NULL)) != -1) {
        switch (c) {
        case FLAG_CONFIG:
            f->config = optarg;
            break;
        case FLAG_KUBECONFIG:
            f->kubeconfig = optarg;
            break;
        case FLAG_CONTEXT:
            f->context = optarg;
            break;
        case FLAG_NAMESPACE:
            f->namespace_ = optarg;
            break;
        case FLAG_LEADER_ELECT:
            f->leader_elect = optarg;
            break;
        case FLAG_LOG_LEVEL:
            f->log_level = optarg;
            break;
        case FLAG_LOG_FORMAT:
            f->log_format = optarg;
            break;
        case FLAG_VERSION:
            puts("pyspy-controller " PYSPY_VERSION);
            return 1;
        case FLAG_HELP:
        case 'h':
            fputs(usage_text, stdout);
            return 1;
        default:
            fputs("see pyspy-controller --help\n", stderr);
            return 2;
        }
    }
    if (optind < argc) {
        fprintf(stderr, "pyspy-controller: unexpected argument \"%s\"; see --help\n", argv[optind]);
        return 2;
    }
    return 0;
}

static int override(const struct flags *f, struct config *config, struct err *err)
{
    if (f->log_level && log_level_parse(str_of(f->log_level), &config->log_level) < 0)
        return err_set(err, ERR_INVALID,
                       "--log-level: \"%s\" is not one of debug, info, warn, error", f->log_level);
    if (f->log_format && log_format_parse(str_of(f->log_format), &config->log_format) < 0)
        return err_set(err, ERR_INVALID, "--log-format: \"%s\" is not one of json, logfmt",
                       f->log_format);
    if (!f->leader_elect)
        return 0;
    struct str value = str_of(f->leader_elect);
    if (!str_is(value, "true") && !str_is(value, "false"))
        return err_set(err, ERR_INVALID, "--leader-elect: \"%s\" is not one of true, false",
                       f->leader_elect);
    config->lease.enabled = str_is(value, "true");
    return 0;
}

static struct str own_namespace(const struct flags *f, struct buf *file)
{
    if (f->namespace_)
        return str_of(f->namespace_);
    if (getenv("POD_NAMESPACE"))
        return str_of(getenv("POD_NAMESPACE"));
    if (buf_read_file(file, NAMESPACE_FILE, NULL) == 0 && file->len)
        return str_trim(buf_str(file));
    return STR(NAMESPACE);
}

int main(int argc, char **argv)
{
    struct flags flags = {NULL};
    int done = parse_flags(argc, argv, &flags);
    if (done)
        return done == 2 ? 2 : 0;
    /* Keys and tokens are in memory: no core dumps. */
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});

    char host[256] = "pyspy-controller";
    gethostname(host, sizeof(host) - 1);
    const char *pod = getenv("POD_NAME");
    _cleanup_(buf_finish) struct buf file = BUF_INIT(256);
    _cleanup_(config_destroyp) struct config *config = NULL;
    struct err err = ERR_INIT;
    log_setup(STDERR_FILENO, LOG_INFO, LOG_LOGFMT);
    int r = config_load(flags.config, own_namespace(&flags, &file), str_of(pod ? pod : host),
                        &config, &err);
    if (r == 0)
        r = override(&flags, config, &err);
    if (r < 0) {
        log_error("cannot start", LOG_ERR(&err));
        return 2;
    }
    log_setup(STDERR_FILENO, config->log_level, config->log_format);
    r = app_run(&(struct app_options){.config = config,
                                      .kubeconfig = flags.kubeconfig,
                                      .context = flags.context,
                                      .version = PYSPY_VERSION},
                &err);
    if (r < 0) {
        log_error("ended", LOG_ERR(&err));
        return 1;
    }
    return 0;
}

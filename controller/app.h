/* The controller as a whole: what there is, in which order it starts and stops. */
#pragma once

#include "controller/config.h"

struct app_options {
    const struct config *config;
    const char *kubeconfig, *context; /* of the flags; NULL: as kubectl finds them */
    const char *version;
};

/* Runs until SIGTERM or SIGINT (0), or until the lease is lost or something else is beyond repair
 * (a negative code). */
int app_run(const struct app_options *options, struct err *err);

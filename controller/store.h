/* What is done with an upload before it is stored: read, checked against the profile, and turned
 * into the ConfigMap or Secret and the receipt. Pure: no I/O; runs on the worker's thread. */
#pragma once

#include "api/task.h"

struct store_target {
    struct str namespace_, profile_name, profile_uid;
    struct str object_name; /* of the ConfigMap or Secret */
    bool secret;
    unsigned formats; /* what was asked for: bits 1 << enum profile_format */
    int64_t max_bytes;
};

/* Fills ret (texts in arena, without MAC). ERR_INVALID, ERR_TOO_LARGE name file and rule. */
int store_check(struct arena *arena, struct str body, const struct store_target *target,
                struct upload *ret_upload, struct receipt *ret, struct err *err);

/* The object to create. */
int store_render_object(struct buf *out, const struct store_target *target,
                        const struct upload *upload, struct err *err);
/* The JSON patch that replaces the content of an object that is this profile's, and of no other:
 * its `test` fails (422) where the label does not say so. */
int store_render_patch(struct buf *out, const struct store_target *target,
                       const struct upload *upload, struct err *err);

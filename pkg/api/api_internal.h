/* Tables and writers that api's own files share. */
#pragma once

#include "api/task.h"

extern const struct json_field process_status_table[];
extern const struct json_field receipt_table[];
void process_status_write(struct json_writer *w, const struct process_status *p);

/* The commands for hosts without Kubernetes: record, dump and top sample a process given by its PID
 * with our own sampler. Each parses its own arguments and returns an exit status: 0 done, 1 failed,
 * 2 not understood. They run on the main thread. */
#pragma once

/* Whether `name` is one of them. */
int record_is_command(const char *name);
int record_main(int argc, char *const *argv); /* argv[1] is the command */

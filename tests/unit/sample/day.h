/* A day of sampling in a minute: an interpreter made up in memory whose threads come and go, whose
 * stacks change at each look, and whose code objects are made anew all the time, at other addresses
 * and at the same ones, as in a program that loads and forgets. The day's clock jumps from look to
 * look. */
#pragma once

#include "sample/record.h"

/* tick: called every 10 s of it. */
struct record_result day_run(unsigned minor, int64_t rate, int64_t minutes, struct profile *profile,
                             void (*tick)(void *context, int64_t second), void *context);
/* Bytes that the program has allocated now, and those that are in memory. */
size_t day_heap(void);
size_t day_resident(void);

/* Made by hack/offsets from the headers of CPython. Do not edit. */
#include "sample/sample_internal.h"

const struct async_offsets async_table[] = {
    {
        .minor = 12,
        .task_coro = 136,
        .task_name = 144,
        .coro_frame = 72,
        .thread_task = 0,
        .state_task_type = 24,
        .state_current = 48,
    },
    {
        .minor = 13,
        .task_coro = 120,
        .task_name = 128,
        .coro_frame = 72,
        .thread_task = 0,
        .state_task_type = 24,
        .state_current = 48,
    },
    {
        .minor = 14,
        .task_coro = 128,
        .task_name = 136,
        .coro_frame = 72,
        .thread_task = 864,
        .state_task_type = 0,
        .state_current = 0,
    },
};
const size_t async_table_len = sizeof(async_table) / sizeof(async_table[0]);

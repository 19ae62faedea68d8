/* Made by hack/offsets from the headers of CPython. Do not edit. */
#include "sample/sample_internal.h"

const struct async_offsets async_table[] = {
    {
        .minor = 12,
        .task_coro = 136,
        .task_name = 144,
        .coro_frame = 72,
        .type_name = 24,
        .type_base = 256,
        .int_tag = 16,
        .int_digits = 24,
        .interpreter_modules = 944,
        .module_state = 32,
        .state_task_type = 24,
        .state_current = 48,
        .dict_keys = 32,
        .keys_index_bytes = 9,
        .keys_kind = 10,
        .keys_entries = 24,
        .keys_head = 32,
    },
    {
        .minor = 13,
        .task_coro = 120,
        .task_name = 128,
        .coro_frame = 72,
        .type_name = 24,
        .type_base = 256,
        .int_tag = 16,
        .int_digits = 24,
        .interpreter_modules = 7656,
        .module_state = 32,
        .state_task_type = 24,
        .state_current = 48,
        .dict_keys = 32,
        .keys_index_bytes = 9,
        .keys_kind = 10,
        .keys_entries = 24,
        .keys_head = 32,
    },
};
const size_t async_table_len = sizeof(async_table) / sizeof(async_table[0]);

/* Python's objects on the way to what is looked for: modules, dictionaries, attributes, numbers.
 * Not those of free-threaded builds, which have another head. All of it may change while it is
 * read, and nothing of it is trusted. One thread at a time. */
#pragma once

#include "sample/sample_internal.h"

/* Made by hack/offsets. 0 means "not in this version" for those marked with it. */
struct object_offsets {
    uint32_t minor;
    uint32_t type_name, type_base, type_flags;
    uint32_t type_size; /* of an instance */
    uint32_t type_dict; /* signed: where an instance has its dictionary; managed ones elsewhere */
    uint32_t type_keys; /* that instances share, of types made by Python code */
    uint32_t int_digits, int_count; /* 30 bits each, and how many */
    uint32_t int_shift;             /* of that number; what is below is the sign; 0: none */
    uint32_t interpreter_modules;
    uint32_t module_dict, module_state;
    uint32_t dict_keys, dict_values;
    uint32_t keys_size;                   /* of the index, in places; 0: the next ones tell */
    uint32_t keys_index_bytes, keys_kind; /* 0: keys_size */
    uint32_t keys_entries, keys_head;
    uint32_t values_first;
    uint32_t values_valid; /* one byte; 0: they are not in the instance */
    /* Bytes before an instance. A managed dictionary, in 3.12 also values with a mark; 0: none. */
    uint32_t instance_dict;
    uint32_t instance_values; /* 0: not there */
};
extern const struct object_offsets objects_table[];
extern const size_t objects_table_len;

struct objects {
    struct memory_reader *reader;
    const struct python_offsets *offsets;
    struct object_offsets at;
    struct memory_batch *batch; /* the caller's, empty between calls */
    int64_t entries;            /* of dictionaries, read so far: what that cost */
};
/* NULL: a free-threaded build, or an unknown version. */
struct objects *objects_create(struct memory_reader *reader, const struct python_offsets *offsets,
                               struct memory_batch *batch);

int object_read64(struct objects *o, uint64_t address, uint64_t *ret);
bool type_is_named(struct objects *o, uint64_t type, const char *name); /* 15 bytes at most */
bool object_is_text(struct objects *o, uint64_t address);

/* Keys and values of a dictionary in the order in which they were put there; either may be 0. */
struct dict_entry {
    uint64_t hash; /* 0: not known, with text as keys */
    uint64_t key, value;
};
struct dict_entries {
    struct dict_entry *at;
    size_t n;
    uint64_t first; /* where they lie */
};
/* 0, or -EFAULT: it is none, or has more than `max`. */
int dict_read(struct objects *o, uint64_t dict, size_t max, struct dict_entries *ret);
void dict_entries_finish(struct dict_entries *e);
/* What stands under a text; 0: nothing. */
uint64_t dict_find(struct objects *o, const struct dict_entries *e, const char *key);

/* sys.modules[name]; 0: not imported. */
uint64_t module_find(struct objects *o, uint64_t interpreter, const char *name);
/* module.name; 0: there is none. */
uint64_t module_get(struct objects *o, uint64_t module, const char *name);
/* object.name from the object's own attributes; 0: there is none. */
uint64_t object_get(struct objects *o, uint64_t object, const char *name);
/* Whether it is this number, of 60 bits at most, if it is a number. */
bool int_is(struct objects *o, uint64_t address, uint64_t number);

/* A dictionary in each interpreter that takes a search through its modules. */
struct dict_place {
    uint64_t interpreter, dict; /* 0: not found */
    uint64_t type;
    int64_t next_ms, wait_ms; /* when to search next */
};
struct dict_places {
    struct dict_place at[SAMPLE_INTERPRETERS_MAX];
    size_t n;
};
typedef uint64_t dict_search_fn(void *context, uint64_t interpreter);
/* Searches where none is known, but rarely. 0: none, or not known. */
uint64_t dict_of(struct objects *o, struct dict_places *places, uint64_t interpreter,
                 dict_search_fn *search, void *context);

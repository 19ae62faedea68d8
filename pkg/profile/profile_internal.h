/* What the readers and writers of pkg/profile share. A stack is a path in one call tree: node 0 is
 * the root, every other node is (parent, frame), so that common beginnings are kept once. Parents
 * come before their children in the array. */
#pragma once

#include "base/arena.h"
#include "base/map.h"
#include "profile/profile.h"

#define NODE_NONE UINT32_MAX
#define TEXT_NONE UINT32_MAX
/* py-spy counts looks at a thread that is just being started or ended with an empty stack. */
#define NO_FRAMES "(no frames)"

/* The first two members are the key of struct pairs. */
struct pair_key {
    uint32_t a, b;
};

/* Index over an array of structures that begin with a struct pair_key; entries are only added. */
struct pairs {
    uint32_t *slots; /* index + 1; 0: free */
    size_t cap, len;
    uint64_t seed;
};

void pairs_init(struct pairs *t);
void pairs_finish(struct pairs *t);
/* The array's index of (a, b), or NODE_NONE. */
uint32_t pairs_find(const struct pairs *t, const void *base, size_t stride, uint32_t a, uint32_t b);
/* Adds entry `index`, which is in the array already and not yet here. */
void pairs_add(struct pairs *t, const void *base, size_t stride, uint32_t index);

/* Texts, each kept once. */
struct texts {
    struct arena *arena;
    struct str *items;
    size_t len, cap, bytes;
    uint32_t *slots; /* index + 1; 0: free */
    size_t slots_cap;
    uint64_t key[2];
};

void texts_init(struct texts *t);
void texts_finish(struct texts *t);
uint32_t texts_find(const struct texts *t, struct str text); /* or TEXT_NONE */
uint32_t texts_add(struct texts *t, struct str text);        /* unless it is there already */

/* The first members of these are the keys of struct pairs. */
struct place {
    struct pair_key key; /* texts: function, file */
};

struct frame {
    struct pair_key key; /* place, line */
};

struct node {
    struct pair_key key; /* parent, frame */
    int64_t self;        /* samples that end here */
};

/* Consecutive samples of one stack. */
struct run {
    uint32_t node, weight;
};

/* Where the samples of a stack are counted when order is not kept. */
struct tally {
    struct pair_key key; /* thread, node */
    uint32_t run;        /* of the thread */
};

/* One frame of a stack and the node that stands for the stack up to it. */
struct step {
    uint32_t frame, node;
};

struct thread {
    struct str label;
    struct run *runs;
    size_t len, cap;
    int64_t samples;
};

struct profile {
    struct profile_limits limits;
    struct texts texts;
    struct pairs place_index, frame_index;
    struct place *places;
    struct frame *frames;
    size_t n_places, places_cap, n_frames, frames_cap;
    struct pairs node_index;
    struct node *nodes;
    size_t n_nodes, nodes_cap;
    struct step *recent; /* the stack that was added last */
    size_t n_recent, recent_cap;
    struct map *thread_index; /* label → thread + 1 */
    struct thread *threads;
    size_t n_threads, threads_cap;
    size_t n_stacks, n_runs;
    int64_t samples;
    bool unordered;
    struct pairs tally_index;
    struct tally *tallies;
    size_t n_tallies, tallies_cap;
    bool scrub;
    char *title, *note;
    int64_t start_ms, duration_ms, rate;
};

/* The array, moved where need be so that it holds `need` items of `size` bytes. */
void *grow(void *array, size_t *cap, size_t need, size_t size) __attribute__((returns_nonnull));
struct profile_frame profile_frame_at(const struct profile *p, size_t index);
int profile_child(struct profile *p, uint32_t parent, uint32_t frame, uint32_t *ret,
                  struct err *err);
int profile_add_run(struct profile *p, uint32_t thread, uint32_t node, int64_t weight,
                    struct err *err);
/* The frames from the root to `node` in `path`, which is grown; returns how many. */
size_t profile_path(const struct profile *p, uint32_t node, uint32_t **path, size_t *cap);

/* The text of a frame, cleaned (control and bidirectional characters, ';', bytes that are not
 * UTF-8). */
struct labels {
    struct str common; /* the directory that all files of the application share, with its '/' */
};
void labels_init(struct labels *l, const struct profile *p);
enum label_origin { LABEL_NATIVE, LABEL_UNKNOWN, LABEL_APPLICATION, LABEL_LIBRARY };
enum label_origin label_origin(struct str file);
struct str label_short_file(const struct labels *l, struct str file);
/* "function (file:line)", "function (file)" or "function" as py-spy writes them. */
void label_append(const struct labels *l, const struct profile_frame *f, struct buf *out);

/* The call tree by label, with siblings in byte order: what people see. */
struct tree_node {
    struct pair_key key; /* parent, label */
    uint32_t first, next;
    int64_t self, total;
};

struct tree {
    struct texts labels;
    uint8_t *hues;           /* of each label, 0 to 10: see hue_of() */
    bool origins;            /* whether application and libraries could be told apart */
    struct tree_node *nodes; /* 0: the root, without a label */
    size_t len;
};

void tree_build(struct tree *t, const struct profile *p);
void tree_finish(struct tree *t);

/* Code point at *pos < s.len, which moves on. Control characters and line ends become spaces, bytes
 * that are not UTF-8 and non-characters U+FFFD. */
uint32_t clean_next(struct str s, size_t *pos);

/* A reflector of Pods against a scripted transport. */
#pragma once

#include "cache/reflector.h"
#include "kube_fixture.h"

#define PODS       "/api/v1/pods?"
#define FIRST_LIST PODS "limit=500&resourceVersion=0"
#define WATCH(version)                                                                             \
    PODS "watch=true&allowWatchBookmarks=true&resourceVersion=" version "&timeoutSeconds=*"
#define STREAM(version)                                                                            \
    PODS "watch=true&allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch="        \
         "NotOlderThan" version "&timeoutSeconds=*"
#define RELIST(version)                                                                            \
    PODS "limit=500&resourceVersion=" version "&resourceVersionMatch=NotOlderThan"

#define POD(name, uid, version)                                                                    \
    "{\"metadata\":{\"name\":\"" name "\",\"namespace\":\"ns\",\"uid\":\"" uid                     \
    "\",\"resourceVersion\":\"" version "\",\"labels\":{\"keep\":\"" uid "\"}}}"
#define LIST_OF(version, items)                                                                    \
    "{\"kind\":\"PodList\",\"metadata\":{\"resourceVersion\":\"" version "\"},\"items\":[" items   \
    "]}"
#define PAGE_OF(version, next, items)                                                              \
    "{\"metadata\":{\"resourceVersion\":\"" version "\",\"continue\":\"" next                      \
    "\"},\"items\":[" items "]}"
#define EVENT(type, object) "{\"type\":\"" type "\",\"object\":" object "}\n"
#define BOOKMARK(version)   EVENT("BOOKMARK", "{\"metadata\":{\"resourceVersion\":\"" version "\"}}")
#define INITIAL_END(version)                                                                       \
    EVENT("BOOKMARK", "{\"metadata\":{\"resourceVersion\":\"" version                              \
                      "\",\"annotations\":{\"k8s.io/initial-events-end\":\"true\"}}}")
#define ERROR_EVENT(code, reason)                                                                  \
    EVENT("ERROR", "{\"kind\":\"Status\",\"code\":" code ",\"reason\":\"" reason "\"}")

struct fixture {
    struct kube_fixture kube;
    struct reflector *reflector;
    struct reflector_options options;
    struct buf story; /* what changed() was told: "+a@5 ~a@6 -a@6 " */
    int synced, failures;
    struct err failure; /* the last one */
};

/* For cmocka; the state is a struct fixture. */
int set_up(void **state);
int tear_down(void **state);
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

/* A GET, which fake_*() then answers; and one that is answered. */
void expect(struct fixture *f, const char *path);
void expect_reply(struct fixture *f, const char *path, const char *body);
void start(struct fixture *f);
/* Expects a list of "a" at version 5, and a watch. */
void start_with_a(struct fixture *f);
/* Runs for so long; then all that was expected has come, and the story is this. */
void check(struct fixture *f, int64_t ms, const char *story);

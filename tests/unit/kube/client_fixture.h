/* Requests of a client against a scripted transport, and the last answer. */
#pragma once

#include "kube_fixture.h"

struct fixture {
    struct kube_fixture kube;
    int answers;
    struct err err;
    struct kube_object *object; /* of the last answer */
};

extern const struct kube_resource pods, jobs;

/* For cmocka; the state is a struct fixture. */
int set_up(void **state);
int tear_down(void **state);
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

struct kube_call *client_send(struct fixture *f, struct kube_request request);
/* A GET of pod x, answered once within the time. */
void get_x(struct fixture *f, int64_t ms);
void expect_x(struct fixture *f);

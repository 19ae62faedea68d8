#include "client_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/alloc.h"

const struct kube_resource pods = {"", "v1", "pods"};
const struct kube_resource jobs = {"batch", "v1", "jobs"};

int set_up(void **state)
{
    struct fixture *f = xcalloc(1, sizeof(*f));
    kube_fixture_init(&f->kube);
    *state = f;
    return 0;
}

int tear_down(void **state)
{
    struct fixture *f = *state;
    kube_fixture_finish(&f->kube);
    kube_object_unref(f->object);
    free(f);
    return 0;
}

static void answered(void *context, struct kube_object *object, struct err *err)
{
    struct fixture *f = context;
    f->answers++;
    f->err = *err;
    kube_object_unref(f->object);
    f->object = object ? kube_object_ref(object) : NULL;
    assert_true(object == NULL || err->code == 0);
}

struct kube_call *client_send(struct fixture *f, struct kube_request request)
{
    int before = f->answers;
    struct kube_call *call = kube_send(f->kube.client, &request, answered, f);
    assert_int_equal(f->answers, before); /* never before it returns */
    return call;
}

void get_x(struct fixture *f, int64_t ms)
{
    client_send(
        f, (struct kube_request){
               .verb = KUBE_GET, .resource = &pods, .namespace_ = STR("ns"), .name = STR("x")});
    kube_fixture_run(&f->kube, ms);
    assert_int_equal(f->answers, 1);
}

void expect_x(struct fixture *f)
{
    fake_expect(f->kube.fake, "GET", "/api/v1/namespaces/ns/pods/x");
}

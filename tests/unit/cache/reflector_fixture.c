#include "reflector_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/alloc.h"

static const struct kube_resource pods = {"", "v1", "pods"};

static void changed(void *context, enum cache_change change, struct kube_object *old,
                    struct kube_object *now)
{
    struct fixture *f = context;
    const struct kube_object *o = now ? now : old;
    buf_appendf(&f->story, "%c%.*s@%.*s ", "+~-"[change], STR_ARG(o->name),
                STR_ARG(o->resource_version));
}

static void synced(void *context)
{
    ((struct fixture *)context)->synced++;
}

static void failed(void *context, const struct err *err)
{
    struct fixture *f = context;
    f->failures++;
    f->failure = *err;
}

int set_up(void **state)
{
    struct fixture *f = xcalloc(1, sizeof(*f));
    kube_fixture_init(&f->kube);
    f->story = BUF_INIT(65536);
    f->options = (struct reflector_options){.name = "pods",
                                            .client = f->kube.client,
                                            .loop = f->kube.loop,
                                            .random = &f->kube.random.source,
                                            .resource = &pods,
                                            .no_watch_list = true,
                                            .changed = changed,
                                            .synced = synced,
                                            .failed = failed,
                                            .context = f};
    *state = f;
    return 0;
}

int tear_down(void **state)
{
    struct fixture *f = *state;
    reflector_destroy(f->reflector);
    kube_fixture_finish(&f->kube);
    buf_finish(&f->story);
    free(f);
    return 0;
}

void start(struct fixture *f)
{
    struct err err = ERR_INIT;
    assert_int_equal(reflector_create(&f->options, &f->reflector, &err), 0);
    reflector_start(f->reflector);
}

void check(struct fixture *f, int64_t ms, const char *story)
{
    kube_fixture_run(&f->kube, ms);
    assert_int_equal(fake_expected(f->kube.fake), 0);
    assert_string_equal(buf_cstr(&f->story), story);
    buf_clear(&f->story);
}

void expect(struct fixture *f, const char *path)
{
    fake_expect(f->kube.fake, "GET", path);
}

void expect_reply(struct fixture *f, const char *path, const char *body)
{
    expect(f, path);
    fake_reply(f->kube.fake, 200, body);
}

void start_with_a(struct fixture *f)
{
    expect_reply(f, FIRST_LIST, LIST_OF("5", POD("a", "1", "5")));
    expect(f, WATCH("5"));
}

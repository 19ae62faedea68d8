/* Which of the kernel's threads belongs to which state of an interpreter: the states are made up,
 * the threads are this process's own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "fake.h"
#include "sample/threads.h"

#define PTHREAD_ID 720 /* where the ID is in struct pthread */

static int proc = -1;
static uint8_t bytes[1u << 20];

struct other {
    pthread_t thread;
    _Atomic pid_t id;
    pthread_barrier_t end;
};

static void *wait_for_end(void *context)
{
    struct other *o = context;
    atomic_store(&o->id, gettid());
    pthread_barrier_wait(&o->end);
    return NULL;
}

/* As the version tells whose a state is: by the ID, or by struct pthread. */
static void belongs_to(struct fake *f, const struct fake_thread *t, uint64_t pthread, pid_t id)
{
    const struct python_offsets *o = f->offsets;
    int32_t value = id;
    fake_put(f, pthread + PTHREAD_ID, &value, sizeof(value));
    fake_put64(f, t->address + o->thread_pthread, pthread);
    if (o->thread_native)
        fake_put64(f, t->address + o->thread_native, (uint64_t)id);
}

static pid_t id_of(const struct threads *ts, const struct fake_thread *t)
{
    for (size_t i = 0; i < ts->n; i++)
        if (ts->at[i]->address == t->address)
            return ts->at[i]->kernel ? kernel_thread_id(ts->at[i]->kernel) : 0;
    return -1;
}

/* known: the thread that makes the other was seen before it did. */
static void check(unsigned minor, bool known, pid_t other)
{
    struct fake f;
    struct fake_thread parent, child;
    struct threads ts = {.reader = &f.reader};
    fake_init(&f, minor, bytes, sizeof(bytes), 0x10000);
    ts.offsets = f.offsets;
    ts.runtime = f.runtime;
    assert_int_equal(kernel_create(proc, getpid(), &ts.kernel, NULL), 0);
    fake_thread(&f, &parent, 0, 1);
    fake_thread(&f, &child, 0, 1);
    uint64_t pthread = fake_alloc(&f, 1024);
    belongs_to(&f, &parent, pthread, getpid());
    belongs_to(&f, &child, pthread, getpid());
    fake_threads(&f, &(const struct fake_thread *){&parent}, 1);
    if (known) {
        assert_int_equal(threads_refresh(&ts), 0);
        assert_int_equal(id_of(&ts, &parent), getpid());
    }

    fake_threads(&f, (const struct fake_thread *[]){&child, &parent}, 2);
    assert_int_equal(threads_refresh(&ts), 0);
    assert_int_equal(id_of(&ts, &parent), getpid());
    assert_int_equal(id_of(&ts, &child), 0);
    usleep(200000);
    assert_true(threads_stale(&ts));

    belongs_to(&f, &child, fake_alloc(&f, 1024), other);
    assert_int_equal(threads_refresh(&ts), 0);
    assert_int_equal(id_of(&ts, &parent), getpid());
    assert_int_equal(id_of(&ts, &child), other);
    threads_finish(&ts);
    kernel_destroy(ts.kernel);
}

/* Up to 3.11 a new thread's state names the one that made it until it has begun. */
static void test_not_begun(void **state)
{
    (void)state;
    struct other other = {0};
    pthread_barrier_init(&other.end, NULL, 2);
    assert_int_equal(pthread_create(&other.thread, NULL, wait_for_end, &other), 0);
    while (!atomic_load(&other.id))
        usleep(1000);
    for (unsigned minor = 8; minor <= 12; minor++) {
        check(minor, true, other.id);
        check(minor, false, other.id);
    }
    pthread_barrier_wait(&other.end);
    pthread_join(other.thread, NULL);
    pthread_barrier_destroy(&other.end);
}

int main(void)
{
    proc = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_not_begun),
    };
    int r = cmocka_run_group_tests(tests, NULL, NULL);
    close(proc);
    return r;
}

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "metrics/metrics.h"

static double read_value(struct metrics_registry *r, const char *name)
{
    struct buf out = BUF_INIT(65536);
    metrics_write(r, &out);
    struct str rest = buf_str(&out);
    double value = -1;
    while (rest.ptr) {
        struct str line = str_cut(&rest, '\n');
        if (str_is(str_cut(&line, ' '), name))
            value = strtod(line.ptr, NULL);
    }
    buf_finish(&out);
    return value;
}

static void test_process(void **state)
{
    (void)state;
    _cleanup_(metrics_registry_destroyp) struct metrics_registry *r = metrics_registry_create();
    metrics_process(r);

    double fds = read_value(r, "process_open_fds");
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    assert_true(read_value(r, "process_open_fds") == fds + 1);
    close(fd);
    assert_true(read_value(r, "process_open_fds") == fds);
    int open_fds = 0;
    for (fd = 0; fd < 4096; fd++)
        open_fds += fcntl(fd, F_GETFD) >= 0;
    assert_true(fds == open_fds);

    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    assert_true(read_value(r, "process_max_fds") == (double)limit.rlim_cur);

    double started = read_value(r, "process_start_time_seconds");
    double now = (double)time(NULL);
    assert_true(started > now - 100 && started < now + 2);

    double before = read_value(r, "process_cpu_seconds_total");
    assert_true(before > 0);
    while ((double)clock() / CLOCKS_PER_SEC < before + 0.02)
        ;
    double after = read_value(r, "process_cpu_seconds_total");
    assert_true(after > before && after < before + 10);

    double resident = read_value(r, "process_resident_memory_bytes");
    assert_true(resident > 500e3);
    assert_true(read_value(r, "process_virtual_memory_bytes") >= resident);
    char *memory = malloc(32u << 20);
    memset(memory, 1, 32u << 20);
    double grown = read_value(r, "process_resident_memory_bytes");
    assert_int_equal(memory[12345], 1);
    free(memory);
    assert_true(grown > resident + (20u << 20));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_process)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

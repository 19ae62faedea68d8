/* What the commands for hosts say, to whom, and when it cannot be said. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <unistd.h>

#include "programs.h"

static void test_output_that_takes_nothing(void **state)
{
    (void)state;
    static const struct {
        const char *line, *output, *says;
    } rows[] = {
        {"record -d 600 -o - -p %p", "", "standard output: Bad file descriptor"},
        {"record -d 1 -o - -p %p", "/dev/full", "write standard output: No space left on device"},
        {"dump -p %p", "", "standard output: Bad file descriptor"},
        {"dump -p %p", "/dev/full", "standard output: No space left on device"},
        {"top -p %p", "", "standard output: Bad file descriptor"},
        {"top -p %p", "/dev/full", "standard output: No space left on device"},
        {"dump --help -p %p", "", "standard output: Bad file descriptor"},
        {"record -h -p %p", "/dev/full", "standard output: No space left on device"},
    };
    struct program target, p;
    if (!program_python(&target, SPIN))
        skip(); /* no /usr/bin/python3 */
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        program_output = rows[i].output;
        program_run(&p, rows[i].line, target.pid);
        program_output = NULL;
        int status = program_finish(&p);
        if (status != 1 || !strstr(buf_cstr(&p.complaints), rows[i].says))
            fail_msg("%s: status %d, %s", rows[i].line, status, buf_cstr(&p.complaints));
        program_kill(&p);
    }
    program_kill(&target);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_output_that_takes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

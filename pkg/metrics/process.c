#include <dirent.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"
#include "metrics/metrics_internal.h"

static void set(struct metrics_registry *r, const char *name, const char *help, double value)
{
    metrics_set(metrics_series(metrics_gauge(r, name, help)), value);
}

static double seconds(clockid_t id)
{
    return (double)clock_read_ns(id) * 1e-9;
}

/* /proc/self/stat counts in ticks of 10 ms; the clock is finer. */
static void set_cpu(struct metrics_registry *r)
{
    struct metrics_series *s = metrics_series(metrics_counter(
        r, "process_cpu_seconds_total", "Total user and system CPU time spent in seconds."));
    atomic_store_explicit(&s->value, seconds(CLOCK_PROCESS_CPUTIME_ID), memory_order_relaxed);
}

enum { START_TIME = 22, VIRTUAL_SIZE = 23, RESIDENT_PAGES = 24 };

/* proc(5) numbers the fields from 1; the command in the second may hold blanks and parentheses. */
static double stat_field(struct str stat, int number)
{
    ssize_t command_end = str_rfind_char(stat, ')');
    struct str rest = str_sub(stat, (size_t)(command_end + 1), stat.len);
    uint64_t value = 0;
    str_cut(&rest, ' ');
    for (int i = 3; i < number && rest.ptr; i++)
        str_cut(&rest, ' ');
    str_to_u64(str_cut(&rest, ' '), UINT64_MAX, &value);
    return (double)value;
}

static void set_from_stat(struct metrics_registry *r)
{
    struct buf stat = BUF_INIT(4096);
    if (buf_read_file(&stat, "/proc/self/stat", NULL) == 0) {
        double started = stat_field(buf_str(&stat), START_TIME) / (double)sysconf(_SC_CLK_TCK);
        double booted = seconds(CLOCK_REALTIME) - seconds(CLOCK_BOOTTIME);
        set(r, "process_start_time_seconds",
            "Start time of the process since unix epoch in seconds.", booted + started);
        set(r, "process_virtual_memory_bytes", "Virtual memory size in bytes.",
            stat_field(buf_str(&stat), VIRTUAL_SIZE));
        set(r, "process_resident_memory_bytes", "Resident memory size in bytes.",
            stat_field(buf_str(&stat), RESIDENT_PAGES) * (double)sysconf(_SC_PAGESIZE));
    }
    buf_finish(&stat);
}

static void set_fds(struct metrics_registry *r)
{
    DIR *directory = opendir("/proc/self/fd");
    if (!directory)
        return;
    int n = -1; /* without the directory's own */
    for (struct dirent *entry; (entry = readdir(directory));)
        n += entry->d_name[0] != '.';
    closedir(directory);
    set(r, "process_open_fds", "Number of open file descriptors.", n);
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0)
        set(r, "process_max_fds", "Maximum number of open file descriptors.",
            (double)limit.rlim_cur);
}

static void update(void *context)
{
    struct metrics_registry *r = context;
    set_cpu(r);
    set_from_stat(r);
    set_fds(r);
}

void metrics_process(struct metrics_registry *r)
{
    metrics_before_write(r, update, r);
}

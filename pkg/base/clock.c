#include "base/clock.h"

#include <stdbool.h>

#include "base/cleanup.h"

int64_t clock_read_ns(clockid_t id)
{
    struct timespec ts;
    clock_gettime(id, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static int64_t system_monotonic(const struct clock *self)
{
    (void)self;
    return clock_read_ns(CLOCK_MONOTONIC) / 1000000;
}

static int64_t system_wall(const struct clock *self)
{
    (void)self;
    return clock_read_ns(CLOCK_REALTIME) / 1000000;
}

const struct clock clock_system = {system_monotonic, system_wall};

/* RFC 3339 knows the years 0 to 9999, Go's zero time is in year 1: others are clamped. */
#define WALL_MIN (-62135596800000)
#define WALL_MAX 253402300799999

static void split(int64_t wall_ms, struct tm *ret_tm, int *ret_ms)
{
    if (wall_ms < WALL_MIN)
        wall_ms = WALL_MIN;
    if (wall_ms > WALL_MAX)
        wall_ms = WALL_MAX;
    int64_t ms = wall_ms % 1000;
    if (ms < 0)
        ms += 1000;
    time_t seconds = (wall_ms - ms) / 1000;
    gmtime_r(&seconds, ret_tm);
    *ret_ms = (int)ms;
}

static int print(const struct tm *tm, char out[static TIME_RFC3339_MAX])
{
    /* The remainders change nothing; they tell the compiler how long each number can be. */
    return snprintf(out, TIME_RFC3339_MAX, "%04u-%02u-%02uT%02u:%02u:%02u",
                    (unsigned)(tm->tm_year + 1900) % 10000, (unsigned)(tm->tm_mon + 1) % 100,
                    (unsigned)tm->tm_mday % 100, (unsigned)tm->tm_hour % 100,
                    (unsigned)tm->tm_min % 100, (unsigned)tm->tm_sec % 100);
}

void time_format(int64_t wall_ms, char out[static TIME_RFC3339_MAX])
{
    struct tm tm;
    int ms;
    split(wall_ms, &tm, &ms);
    int n = print(&tm, out);
    snprintf(out + n, (size_t)(TIME_RFC3339_MAX - n), "Z");
}

void time_format_micro(int64_t wall_ms, char out[static TIME_RFC3339_MAX])
{
    struct tm tm;
    int ms;
    split(wall_ms, &tm, &ms);
    int n = print(&tm, out);
    snprintf(out + n, (size_t)(TIME_RFC3339_MAX - n), ".%03d000Z", ms);
}

/* Takes `digits` digits that lie in min … max, then the byte `after` unless that is 0. */
static bool take_number(struct str *s, size_t digits, int min, int max, char after, int *ret)
{
    uint64_t value;
    if (s->len < digits + (after ? 1 : 0) ||
        str_to_u64(str_sub(*s, 0, digits), (uint64_t)max, &value) < 0 || (int)value < min ||
        (after && s->ptr[digits] != after))
        return false;
    *s = str_sub(*s, digits + (after ? 1 : 0), s->len);
    *ret = (int)value;
    return true;
}

static int days_in(int year, int month)
{
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return month == 2 && leap ? 29 : days[month - 1];
}

/* ".123456" to 123; false when no digit follows the dot. */
static bool take_fraction(struct str *s, int *ret_ms)
{
    int ms = 0, scale = 100;
    *s = str_sub(*s, 1, s->len);
    if (s->len == 0 || *s->ptr < '0' || *s->ptr > '9')
        return false;
    while (s->len && *s->ptr >= '0' && *s->ptr <= '9') {
        ms += (*s->ptr - '0') * scale;
        scale /= 10;
        *s = str_sub(*s, 1, s->len);
    }
    *ret_ms = ms;
    return true;
}

int time_parse(struct str s, int64_t *ret_wall_ms)
{
    struct tm tm = {0};
    int year, month, ms = 0, offset_hours = 0, offset_minutes = 0, sign = 1;
    if (!take_number(&s, 4, 0, 9999, '-', &year) || !take_number(&s, 2, 1, 12, '-', &month) ||
        !take_number(&s, 2, 1, days_in(year, month), 'T', &tm.tm_mday) ||
        !take_number(&s, 2, 0, 23, ':', &tm.tm_hour) ||
        !take_number(&s, 2, 0, 59, ':', &tm.tm_min) || !take_number(&s, 2, 0, 59, 0, &tm.tm_sec))
        return ERR_INVALID;
    if (s.len && *s.ptr == '.' && !take_fraction(&s, &ms))
        return ERR_INVALID;
    if (s.len && (*s.ptr == '+' || *s.ptr == '-')) {
        sign = *s.ptr == '-' ? -1 : 1;
        s = str_sub(s, 1, s.len);
        if (!take_number(&s, 2, 0, 23, ':', &offset_hours) ||
            !take_number(&s, 2, 0, 59, 0, &offset_minutes) || s.len)
            return ERR_INVALID;
    } else if (!str_eq(s, STR("Z"))) {
        return ERR_INVALID;
    }
    tm.tm_year = year - 1900;
    tm.tm_mon = month - 1;
    int64_t offset = sign * (offset_hours * 3600 + offset_minutes * 60);
    *ret_wall_ms = ((int64_t)timegm(&tm) - offset) * 1000 + ms;
    return 0;
}

#define DURATION_MAX_MS ((uint64_t)1 << 53)
#define NS_PER_MS       1000000u

struct unit {
    struct str name;
    uint64_t ns;
};

static const struct unit units[] = {
    {{"ns", 2}, 1},
    {{"us", 2}, 1000},
    {{"\xc2\xb5s", 3}, 1000}, /* U+00B5, micro sign */
    {{"\xce\xbcs", 3}, 1000}, /* U+03BC, Greek mu */
    {{"ms", 2}, NS_PER_MS},
    {{"s", 1}, 1000u * NS_PER_MS},
    {{"m", 1}, 60000ull * NS_PER_MS},
    {{"h", 1}, 3600000ull * NS_PER_MS},
};

static struct str take_digits(struct str *s)
{
    size_t n = 0;
    while (n < s->len && s->ptr[n] >= '0' && s->ptr[n] <= '9')
        n++;
    struct str digits = str_sub(*s, 0, n);
    *s = str_sub(*s, n, s->len);
    return digits;
}

static const struct unit *take_unit(struct str *s)
{
    size_t n = 0;
    while (n < s->len && s->ptr[n] != '.' && (s->ptr[n] < '0' || s->ptr[n] > '9'))
        n++;
    struct str name = str_sub(*s, 0, n);
    *s = str_sub(*s, n, s->len);
    for (size_t i = 0; i < ARRAY_SIZE(units); i++) {
        if (str_eq(units[i].name, name))
            return &units[i];
    }
    return NULL;
}

/* The digits behind the point in nanoseconds; more of them than a double holds are dropped, as
 * Go does. */
static uint64_t fraction_ns(struct str digits, uint64_t unit_ns)
{
    uint64_t value = 0;
    double scale = 1;
    for (size_t i = 0; i < digits.len && i < 15; i++) {
        value = value * 10 + (uint64_t)(digits.ptr[i] - '0');
        scale *= 10;
    }
    return (uint64_t)((double)value * ((double)unit_ns / scale));
}

/* One "1.5h": adds to whole milliseconds and the nanoseconds beyond them. */
static bool add_term(struct str *s, uint64_t *ms, uint64_t *ns)
{
    struct str whole = take_digits(s), fraction = STR_NULL;
    if (s->len && *s->ptr == '.') {
        *s = str_sub(*s, 1, s->len);
        fraction = take_digits(s);
    }
    if (whole.len == 0 && fraction.len == 0)
        return false;
    uint64_t value = 0;
    if (whole.len && str_to_u64(whole, UINT64_MAX, &value) < 0)
        return false;
    const struct unit *unit = take_unit(s);
    if (!unit)
        return false;
    if (unit->ns >= NS_PER_MS) {
        if (__builtin_mul_overflow(value, unit->ns / NS_PER_MS, &value) || value > DURATION_MAX_MS)
            return false;
        *ms += value;
    } else {
        uint64_t per_ms = NS_PER_MS / unit->ns;
        *ms += value / per_ms;
        *ns += value % per_ms * unit->ns;
    }
    *ns += fraction_ns(fraction, unit->ns);
    *ms += *ns / NS_PER_MS;
    *ns %= NS_PER_MS;
    return *ms <= DURATION_MAX_MS;
}

int duration_parse(struct str s, int64_t *ret_ms)
{
    uint64_t ms = 0, ns = 0;
    if (s.len && *s.ptr == '+')
        s = str_sub(s, 1, s.len);
    if (s.len == 0)
        return ERR_INVALID;
    if (!str_eq(s, STR("0"))) {
        while (s.len) {
            if (!add_term(&s, &ms, &ns))
                return ERR_INVALID;
        }
    }
    *ret_ms = (int64_t)ms;
    return 0;
}

void duration_format(int64_t ms, char out[static TIME_RFC3339_MAX])
{
    const char *sign = ms < 0 ? "-" : "";
    uint64_t left = ms < 0 ? 0 - (uint64_t)ms : (uint64_t)ms;
    if (left == 0) {
        snprintf(out, TIME_RFC3339_MAX, "0s");
        return;
    }
    if (left < 1000) {
        snprintf(out, TIME_RFC3339_MAX, "%s%ums", sign, (unsigned)left);
        return;
    }
    unsigned millis = (unsigned)(left % 1000), seconds = (unsigned)(left / 1000 % 60);
    unsigned minutes = (unsigned)(left / 60000 % 60);
    uint64_t hours = left / 3600000;
    char fraction[8] = "";
    if (millis) {
        int n = snprintf(fraction, sizeof(fraction), ".%03u", millis);
        while (fraction[n - 1] == '0')
            fraction[--n] = '\0';
    }
    if (hours)
        snprintf(out, TIME_RFC3339_MAX, "%s%lluh%um%u%ss", sign, (unsigned long long)hours, minutes,
                 seconds, fraction);
    else if (minutes)
        snprintf(out, TIME_RFC3339_MAX, "%s%um%u%ss", sign, minutes, seconds, fraction);
    else
        snprintf(out, TIME_RFC3339_MAX, "%s%u%ss", sign, seconds, fraction);
}

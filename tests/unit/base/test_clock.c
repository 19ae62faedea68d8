#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "base/clock.h"

#define BAD INT64_MIN

static const struct {
    const char *text;
    int64_t ms;
} times[] = {
    {"1970-01-01T00:00:00Z", 0},
    {"2026-01-31T23:59:59Z", 1769903999000},
    {"2026-01-31T23:59:59.123456Z", 1769903999123},
    {"2026-01-31T23:59:59.1Z", 1769903999100},
    {"2026-01-31T23:59:59.999999999999999999999Z", 1769903999999},
    {"2026-02-01T01:59:59+02:00", 1769903999000},
    {"2026-01-31T18:29:59-05:30", 1769903999000},
    {"1969-12-31T23:59:59.500Z", -500},
    {"0001-01-01T00:00:00Z", -62135596800000},
    {"9999-12-31T23:59:59.999Z", 253402300799999},
    {"2024-02-29T00:00:00Z", 1709164800000},
    {"2000-02-29T00:00:00Z", 951782400000},
    {"2023-02-29T00:00:00Z", BAD},
    {"1900-02-29T00:00:00Z", BAD},
    {"2026-04-31T00:00:00Z", BAD},
    {"2026-13-01T00:00:00Z", BAD},
    {"2026-00-01T00:00:00Z", BAD},
    {"2026-01-00T00:00:00Z", BAD},
    {"2026-01-01T24:00:00Z", BAD},
    {"2026-01-01T00:60:00Z", BAD},
    {"2026-01-01T00:00:60Z", BAD},
    {"2026-01-01T00:00:00", BAD},
    {"2026-01-01T00:00:00.Z", BAD},
    {"2026-01-01T00:00:00ZZ", BAD},
    {"2026-01-01T00:00:00+24:00", BAD},
    {"2026-01-01T00:00:00+0200", BAD},
    {"2026-01-01T00:00:00+02:00Z", BAD},
    {"2026-01-01 00:00:00Z", BAD},
    {"2026-1-01T00:00:00Z", BAD},
    {"+026-01-01T00:00:00Z", BAD},
    {" 2026-01-01T00:00:00Z", BAD},
    {"2026-01-01", BAD},
    {"", BAD},
};

static void test_time_parse(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(times); i++) {
        int64_t ms = 77;
        int code = time_parse(str_of(times[i].text), &ms);
        if (code != (times[i].ms == BAD ? ERR_INVALID : 0) ||
            ms != (times[i].ms == BAD ? 77 : times[i].ms))
            fail_msg("%s: %d, %lld", times[i].text, code, (long long)ms);
    }
}

/* Every prefix of a time is none, and reading one stays within its length (ASan watches). */
static void test_time_parse_prefixes(void **state)
{
    (void)state;
    static const char whole[] = "2026-01-31T23:59:59.5+02:00";
    for (size_t n = 0; n < sizeof(whole) - 1; n++) {
        char *copy = str_dup((struct str){whole, n});
        char *tight = realloc(copy, n ? n : 1);
        int64_t ms;
        assert_int_equal(time_parse((struct str){tight, n}, &ms), ERR_INVALID);
        free(tight);
    }
}

static void test_time_format(void **state)
{
    (void)state;
    static const struct {
        int64_t ms;
        const char *seconds, *micro;
    } rows[] = {
        {0, "1970-01-01T00:00:00Z", "1970-01-01T00:00:00.000000Z"},
        {1769903999123, "2026-01-31T23:59:59Z", "2026-01-31T23:59:59.123000Z"},
        {-1, "1969-12-31T23:59:59Z", "1969-12-31T23:59:59.999000Z"},
        {INT64_MIN, "0001-01-01T00:00:00Z", "0001-01-01T00:00:00.000000Z"},
        {INT64_MAX, "9999-12-31T23:59:59Z", "9999-12-31T23:59:59.999000Z"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        char text[TIME_RFC3339_MAX];
        time_format(rows[i].ms, text);
        assert_string_equal(text, rows[i].seconds);
        time_format_micro(rows[i].ms, text);
        assert_string_equal(text, rows[i].micro);
    }
}

static void test_time_round_trip(void **state)
{
    (void)state;
    for (int64_t ms = -62135596800000; ms < 253402300799999; ms += 86400000LL * 97 + 12345678) {
        char text[TIME_RFC3339_MAX];
        int64_t back;
        time_format_micro(ms, text);
        assert_int_equal(time_parse(str_of(text), &back), 0);
        assert_true(back == ms);
    }
}

static const struct {
    const char *text;
    int64_t ms;
} durations[] = {
    /* From Go's time_test.go, parseDurationTests. */
    {"0", 0},
    {"5s", 5000},
    {"30s", 30000},
    {"1478s", 1478000},
    {"+5s", 5000},
    {"+0", 0},
    {"5.0s", 5000},
    {"5.6s", 5600},
    {"5.s", 5000},
    {".5s", 500},
    {"1.0s", 1000},
    {"1.00s", 1000},
    {"1.004s", 1004},
    {"1.0040s", 1004},
    {"100.00100s", 100001},
    {"10ns", 0},
    {"11us", 0},
    {"12\xc2\xb5s", 0},
    {"12\xce\xbcs", 0},
    {"13ms", 13},
    {"14s", 14000},
    {"15m", 900000},
    {"16h", 57600000},
    {"3h30m", 12600000},
    {"10.5s4m", 250500},
    {"1h2m3s4ms5us6ns", 3723004},
    {"39h9m14.425s", 140954425},
    {"52763797000ns", 52763},
    {"0.3333333333333333333h", 1200000 - 1},
    {"0.100000000000000000000h", 360000},
    {"0.830103483285477580700h", 2988372},
    /* Ours. */
    {"1h30m", 5400000},
    {"1.5s", 1500},
    {"300ms", 300},
    {"999us999us999us", 2},
    {"9007199254740992ms", 9007199254740992},
    {"9007199254740993ms", BAD},
    {"9007199254740992ms1ms", BAD},
    {"1ms18446744073709551615ms", BAD},
    {"9223372036854775807h", BAD},
    {"18446744073709551616ns", BAD},
    {"", BAD},
    {"3", BAD},
    {"-", BAD},
    {"+", BAD},
    {"s", BAD},
    {".", BAD},
    {".s", BAD},
    {"-5s", BAD},
    {"+.s", BAD},
    {"1d", BAD},
    {"1w", BAD},
    {"1 s", BAD},
    {" 1s", BAD},
    {"1s ", BAD},
    {"1S", BAD},
    {"1s2", BAD},
    {"1..5s", BAD},
    {"1e3s", BAD},
    {"0x1s", BAD},
    {"\x85\x85", BAD},
};

static void test_duration_parse(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(durations); i++) {
        int64_t ms = 77;
        int code = duration_parse(str_of(durations[i].text), &ms);
        if (code != (durations[i].ms == BAD ? ERR_INVALID : 0) ||
            ms != (durations[i].ms == BAD ? 77 : durations[i].ms))
            fail_msg("%s: %d, %lld", durations[i].text, code, (long long)ms);
    }
}

static void test_duration_parse_nul_inside(void **state)
{
    (void)state;
    int64_t ms;
    assert_int_equal(duration_parse(STR("1s\0"), &ms), ERR_INVALID);
    assert_int_equal(duration_parse(STR_NULL, &ms), ERR_INVALID);
}

static void test_duration_format(void **state)
{
    (void)state;
    static const struct {
        int64_t ms;
        const char *text;
    } rows[] = {
        {0, "0s"},
        {1, "1ms"},
        {300, "300ms"},
        {999, "999ms"},
        {1000, "1s"},
        {1100, "1.1s"},
        {1010, "1.01s"},
        {1001, "1.001s"},
        {45000, "45s"},
        {60000, "1m0s"},
        {90500, "1m30.5s"},
        {3600000, "1h0m0s"},
        {5400000, "1h30m0s"},
        {90000000, "25h0m0s"},
        {-1500, "-1.5s"},
        {-5, "-5ms"},
        {INT64_MAX, "2562047788015h12m55.807s"},
        {INT64_MIN, "-2562047788015h12m55.808s"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        char text[TIME_RFC3339_MAX];
        duration_format(rows[i].ms, text);
        assert_string_equal(text, rows[i].text);
        int64_t back;
        if (rows[i].ms >= 0 && rows[i].ms < (INT64_C(1) << 53)) {
            assert_int_equal(duration_parse(str_of(text), &back), 0);
            assert_true(back == rows[i].ms);
        }
    }
}

static void test_system_clock(void **state)
{
    (void)state;
    int64_t before = clock_monotonic_ms(&clock_system);
    assert_true(clock_monotonic_ms(&clock_system) >= before);
    assert_true(clock_wall_ms(&clock_system) > 1700000000000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_time_parse),      cmocka_unit_test(test_time_parse_prefixes),
        cmocka_unit_test(test_time_format),     cmocka_unit_test(test_time_round_trip),
        cmocka_unit_test(test_duration_parse),  cmocka_unit_test(test_duration_parse_nul_inside),
        cmocka_unit_test(test_duration_format), cmocka_unit_test(test_system_clock),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

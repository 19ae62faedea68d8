/* The configuration file: what is accepted is within its limits, what is not is said in words. */

#include "controller/config.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    _cleanup_(config_destroyp) struct config *c = NULL;
    struct err err = ERR_INIT;
    if (config_parse((struct str){(const char *)bytes, len}, STR("n"), STR("p"), &c, &err) < 0) {
        FUZZ_CHECK(!c && err.message[0]);
        FUZZ_CHECK(err.code == ERR_INVALID || err.code == ERR_TOO_LARGE);
        return 0;
    }
    FUZZ_CHECK(c->runner.image.len && c->runner.service_account_name.len);
    FUZZ_CHECK(c->limits.max_concurrent >= 1 && c->limits.max_duration_ms <= 3600000);
    FUZZ_CHECK(c->limits.max_result_bytes >= 65536 && c->limits.max_result_bytes <= 1024000);
    FUZZ_CHECK(c->results_listen.port >= 1 && c->results_listen.port <= 65535);
    FUZZ_CHECK(str_starts_with(c->results_url, STR("https://")));
    FUZZ_CHECK(c->lease.duration_ms > c->lease.renew_deadline_ms);
    FUZZ_CHECK(c->lease.renew_deadline_ms > c->lease.retry_period_ms);
    return 0;
}

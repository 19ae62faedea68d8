#include "kube_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

void kube_fixture_init(struct kube_fixture *f)
{
    static const char *const environment[] = {"KUBERNETES_SERVICE_HOST=10.0.0.1",
                                              "KUBERNETES_SERVICE_PORT=443", NULL};
    struct err err = ERR_INIT;
    sim_time_init(&f->time);
    random_seed(&f->random, 1);
    assert_int_equal(loop_create(&f->time.clock, &f->loop, &err), 0);
    f->fake = fake_transport_create(f->loop);
    struct kube_config_options config = {.environment = environment,
                                         .service_account_dir = SIM_DATA "/serviceaccount"};
    assert_int_equal(kube_config_load(&config, &f->config, &err), 0);
    struct kube_client_options client = {.loop = f->loop,
                                         .transport = fake_transport(f->fake),
                                         .config = f->config,
                                         .random = &f->random.source};
    assert_int_equal(kube_client_create(&client, &f->client, &err), 0);
}

void kube_fixture_finish(struct kube_fixture *f)
{
    assert_int_equal(fake_expected(f->fake), 0);
    kube_client_destroy(f->client);
    assert_int_equal(fake_open(f->fake), 0);
    kube_config_destroy(f->config);
    fake_transport_destroy(f->fake);
    loop_destroy(f->loop);
}

void kube_fixture_run(struct kube_fixture *f, int64_t ms)
{
    sim_run(&f->time, f->loop, ms);
}

#include "controller/identity.h"

#include "base/alloc.h"
#include "base/log.h"
#include "crypto/digest.h"
#include "crypto/x509.h"

#define DAY_S            86400
#define LEAF_LIFETIME_S  (90 * DAY_S)
#define CA_LIFETIME_S    (730 * DAY_S)
#define NEXT_CA_WAIT_MS  (26LL * 3600 * 1000) /* the longest that a Job can live, and an hour */
#define LOOK_AGAIN_MS    (3600 * 1000)        /* has another replica renewed it, is it time to? */
#define RETRY_MS         2000
#define RECEIPT_KEY_SIZE 32
#define SECRET_MAX       (128u << 10)

enum {
    PART_CA,
    PART_CA_KEY,
    PART_NEXT_CA, /* trusted already, signs later; empty most of the time */
    PART_NEXT_CA_KEY,
    PART_CERT,
    PART_KEY,
    PART_RECEIPT_KEY,
    PART_COUNT
};

static const char *const part_names[PART_COUNT] = {
    "ca.crt", "ca.key", "next-ca.crt", "next-ca.key", "tls.crt", "tls.key", "receipt.key"};

struct identity {
    const struct config *config;
    struct loop *loop;
    struct kube_client *client;
    struct random_source *random;
    void (*changed)(void *context, struct str certificate, struct str key);
    void *context;
    struct loop_timer timer;
    struct kube_call *call;
    struct buf parts[PART_COUNT];
    struct buf bundle; /* the authorities */
    bool ready;
};

static void look(struct identity *id);

static void wipe(struct buf parts[static PART_COUNT])
{
    for (int i = 0; i < PART_COUNT; i++)
        crypto_wipe_buf(&parts[i]);
}

static void init_parts(struct buf parts[static PART_COUNT])
{
    for (int i = 0; i < PART_COUNT; i++) {
        parts[i] = BUF_INIT(CRYPTO_PEM_MAX);
        buf_reserve(&parts[i], 4096); /* so that keys are not copied when it grows */
    }
}

static void timer_fired(struct loop_timer *timer)
{
    look(CONTAINER_OF(timer, struct identity, timer));
}

static void again(struct identity *id, int64_t ms)
{
    loop_timer_arm(id->loop, &id->timer, ms + (int64_t)random_below(id->random, 1000));
}

/* Whether a certificate has less than a third of its life left, or cannot be read. */
static bool is_old(struct str pem, int64_t now_ms)
{
    int64_t from, to;
    return crypto_cert_validity(pem, &from, &to, NULL) < 0 || now_ms < from ||
           to - now_ms < (to - from) / 3;
}

static bool is_valid(const struct buf parts[static PART_COUNT])
{
    return crypto_cert_matches_key(buf_str(&parts[PART_CA]), buf_str(&parts[PART_CA_KEY]), NULL) ==
               0 &&
           crypto_cert_matches_key(buf_str(&parts[PART_CERT]), buf_str(&parts[PART_KEY]), NULL) ==
               0 &&
           crypto_cert_issued_by(buf_str(&parts[PART_CERT]), buf_str(&parts[PART_CA]), NULL) == 0;
}

/* The host of results.url: what the Jobs will check. */
static char *url_host(const struct config *config)
{
    struct str rest = config->results_url;
    rest = str_sub(rest, strlen("https://"), rest.len);
    struct str host = str_cut(&rest, '/');
    if (host.len && host.ptr[0] == '[')
        host = str_sub(host, 1, (size_t)str_find_char(host, ']') - 1);
    else if (str_find_char(host, ':') >= 0)
        host.len = (size_t)str_find_char(host, ':');
    return str_dup(host);
}

static int make_leaf(struct identity *id, struct buf parts[static PART_COUNT], int64_t now_ms,
                     struct err *err)
{
    _cleanup_(freep) char *host = url_host(id->config);
    buf_clear(&parts[PART_CERT]);
    buf_clear(&parts[PART_KEY]);
    return crypto_make_leaf(buf_str(&parts[PART_CA]), buf_str(&parts[PART_CA_KEY]),
                            (const char *const[]){host, NULL}, LEAF_LIFETIME_S, now_ms,
                            &parts[PART_CERT], &parts[PART_KEY], err);
}

static int make_ca(struct buf *cert, struct buf *key, int64_t now_ms, struct err *err)
{
    buf_clear(cert);
    buf_clear(key);
    return crypto_make_ca("pyspy-controller results", CA_LIFETIME_S, now_ms, cert, key, err);
}

static void move(struct buf *to, struct buf *from)
{
    buf_clear(to);
    buf_append_str(to, buf_str(from));
    crypto_wipe(from->ptr, from->len);
    buf_clear(from);
}

/* An authority is handed to the Jobs as soon as it is made, and signs only when every Job that was
 * made before has ended: so no Job ever meets a certificate that it does not trust. */
static int renew_ca(struct buf parts[static PART_COUNT], int64_t now_ms, bool *changed,
                    bool *promoted, struct err *err)
{
    int64_t from, to;
    bool has_next = crypto_cert_matches_key(buf_str(&parts[PART_NEXT_CA]),
                                            buf_str(&parts[PART_NEXT_CA_KEY]), NULL) == 0 &&
                    crypto_cert_validity(buf_str(&parts[PART_NEXT_CA]), &from, &to, NULL) == 0;
    if (has_next && now_ms - from > NEXT_CA_WAIT_MS) {
        move(&parts[PART_CA], &parts[PART_NEXT_CA]);
        move(&parts[PART_CA_KEY], &parts[PART_NEXT_CA_KEY]);
        *changed = *promoted = true;
    } else if (!has_next && is_old(buf_str(&parts[PART_CA]), now_ms)) {
        *changed = true;
        return make_ca(&parts[PART_NEXT_CA], &parts[PART_NEXT_CA_KEY], now_ms, err);
    }
    return 0;
}

/* Brings the parts up to date; *ret_changed tells whether there is something to store. */
static int renew(struct identity *id, struct buf parts[static PART_COUNT], bool *ret_changed,
                 struct err *err)
{
    int64_t now_ms = clock_wall_ms(loop_clock(id->loop));
    _cleanup_(freep) char *host = url_host(id->config);
    bool changed = false, new_ca = false;
    int r;
    if (is_valid(parts)) {
        r = renew_ca(parts, now_ms, &changed, &new_ca, err);
    } else {
        changed = new_ca = true;
        r = make_ca(&parts[PART_CA], &parts[PART_CA_KEY], now_ms, err);
    }
    if (r < 0)
        return r;
    if (new_ca || is_old(buf_str(&parts[PART_CERT]), now_ms) ||
        crypto_cert_covers(buf_str(&parts[PART_CERT]), host, NULL) < 0) {
        changed = true;
        r = make_leaf(id, parts, now_ms, err);
        if (r < 0)
            return r;
    }
    if (parts[PART_RECEIPT_KEY].len < RECEIPT_KEY_SIZE) {
        changed = true;
        buf_clear(&parts[PART_RECEIPT_KEY]);
        char *key = buf_reserve(&parts[PART_RECEIPT_KEY], RECEIPT_KEY_SIZE);
        random_fill(id->random, key, RECEIPT_KEY_SIZE);
        parts[PART_RECEIPT_KEY].len += RECEIPT_KEY_SIZE;
    }
    *ret_changed = changed;
    return 0;
}

static void adopt(struct identity *id, struct buf parts[static PART_COUNT])
{
    bool other = !id->ready ||
                 !str_eq(buf_str(&id->parts[PART_CERT]), buf_str(&parts[PART_CERT])) ||
                 !str_eq(buf_str(&id->parts[PART_CA]), buf_str(&parts[PART_CA]));
    for (int i = 0; i < PART_COUNT; i++) {
        struct buf old = id->parts[i];
        id->parts[i] = parts[i];
        parts[i] = old;
    }
    buf_clear(&id->bundle);
    buf_append_str(&id->bundle, buf_str(&id->parts[PART_CA]));
    buf_append_str(&id->bundle, buf_str(&id->parts[PART_NEXT_CA]));
    id->ready = true;
    if (other)
        id->changed(id->context, buf_str(&id->parts[PART_CERT]), buf_str(&id->parts[PART_KEY]));
    again(id, LOOK_AGAIN_MS);
}

static void parse_secret(const struct kube_object *secret, struct buf parts[static PART_COUNT])
{
    const struct json *content = json_get(secret->tree, "data");
    for (int i = 0; i < PART_COUNT; i++) {
        struct str text = json_text(json_get(content, part_names[i]));
        crypto_base64_decode(text, CRYPTO_BASE64_STANDARD, &parts[i], NULL);
    }
}

static void render_secret(struct identity *id, const struct buf parts[static PART_COUNT],
                          struct str resource_version, struct buf *out)
{
    struct json_writer w = JSON_WRITER(out);
    json_begin_object(&w, NULL);
    json_put_cstr(&w, "apiVersion", "v1");
    json_put_cstr(&w, "kind", "Secret");
    json_put_cstr(&w, "type", "Opaque");
    json_begin_object(&w, "metadata");
    json_put_cstr(&w, "name", IDENTITY_SECRET);
    json_put_str(&w, "namespace", id->config->namespace_);
    json_begin_object(&w, "labels");
    json_put_cstr(&w, "app.kubernetes.io/managed-by", "pyspy-controller");
    json_end_object(&w);
    if (resource_version.len)
        json_put_str(&w, "resourceVersion", resource_version);
    json_end_object(&w);
    json_begin_object(&w, "data");
    for (int i = 0; i < PART_COUNT; i++) {
        struct buf text = BUF_INIT(2 * CRYPTO_PEM_MAX);
        buf_reserve(&text, 2 * parts[i].len + 4);
        crypto_base64_encode(&text, buf_str(&parts[i]), CRYPTO_BASE64_STANDARD);
        json_put_str(&w, part_names[i], buf_str(&text));
        crypto_wipe_buf(&text);
    }
    json_end_object(&w);
    json_end_object(&w);
}

static void stored(void *context, struct kube_object *object, struct err *err)
{
    struct identity *id = context;
    (void)object;
    id->call = NULL;
    if (err->code && err->code != ERR_EXISTS && err->code != ERR_CONFLICT)
        log_warn("cannot store the certificate of the result endpoint", LOG_ERR(err));
    if (err->code) { /* another replica may have been quicker: read what it wrote */
        again(id, RETRY_MS);
        return;
    }
    log_info("made a new certificate for the result endpoint");
    look(id); /* what is stored is what counts */
}

static void store(struct identity *id, const struct buf parts[static PART_COUNT],
                  struct str resource_version)
{
    struct buf body = BUF_INIT(SECRET_MAX);
    buf_reserve(&body, SECRET_MAX / 4);
    render_secret(id, parts, resource_version, &body);
    id->call = kube_send(
        id->client,
        &(struct kube_request){.verb = resource_version.len ? KUBE_UPDATE : KUBE_CREATE,
                               .resource = &(struct kube_resource){"", "v1", "secrets"},
                               .namespace_ = id->config->namespace_,
                               .name = resource_version.len ? STR(IDENTITY_SECRET) : STR_NULL,
                               .body = buf_str(&body),
                               .discard_reply = true},
        stored, id);
    crypto_wipe_buf(&body);
}

static void looked(void *context, struct kube_object *secret, struct err *err)
{
    struct identity *id = context;
    id->call = NULL;
    if (err->code && err->code != ERR_NOT_FOUND) {
        log_warn("cannot read the certificate of the result endpoint", LOG_ERR(err));
        again(id, RETRY_MS);
        return;
    }
    struct buf parts[PART_COUNT];
    init_parts(parts);
    if (secret)
        parse_secret(secret, parts);
    bool changed;
    struct err failure = ERR_INIT;
    if (renew(id, parts, &changed, &failure) < 0) {
        log_error("cannot make a certificate for the result endpoint", LOG_ERR(&failure));
        again(id, RETRY_MS);
    } else if (changed) {
        store(id, parts, secret ? secret->resource_version : STR_NULL);
    } else {
        adopt(id, parts);
    }
    wipe(parts);
}

static void look(struct identity *id)
{
    id->call =
        kube_send(id->client,
                  &(struct kube_request){.verb = KUBE_GET,
                                         .resource = &(struct kube_resource){"", "v1", "secrets"},
                                         .namespace_ = id->config->namespace_,
                                         .name = STR(IDENTITY_SECRET)},
                  looked, id);
}

int identity_create(const struct identity_options *options, struct identity **ret, struct err *err)
{
    (void)err;
    struct identity *id = xcalloc(1, sizeof(*id));
    *id = (struct identity){.config = options->config,
                            .loop = options->loop,
                            .client = options->client,
                            .random = options->random,
                            .changed = options->changed,
                            .context = options->context,
                            .timer = {.fire = timer_fired},
                            .bundle = BUF_INIT(2 * CRYPTO_PEM_MAX)};
    init_parts(id->parts);
    *ret = id;
    return 0;
}

void identity_destroy(struct identity *id)
{
    if (!id)
        return;
    kube_cancel(id->client, id->call);
    loop_timer_disarm(id->loop, &id->timer);
    wipe(id->parts);
    buf_finish(&id->bundle);
    free(id);
}

void identity_start(struct identity *id)
{
    look(id);
}

bool identity_ready(const struct identity *id)
{
    return id->ready;
}

struct str identity_ca(const struct identity *id)
{
    return buf_str(&id->bundle);
}

static void compute_mac(const struct identity *id, struct str uid, const struct receipt *receipt,
                        char ret[static CRYPTO_SHA256_HEX])
{
    _cleanup_(buf_finish) struct buf input = BUF_INIT(64u << 10);
    receipt_mac_input(&input, uid, receipt);
    crypto_hmac_sha256_hex(buf_str(&id->parts[PART_RECEIPT_KEY]), buf_str(&input), ret);
}

void identity_sign(const struct identity *id, struct arena *arena, struct str profile_uid,
                   struct receipt *receipt)
{
    char mac[CRYPTO_SHA256_HEX];
    compute_mac(id, profile_uid, receipt, mac);
    receipt->mac = arena_str(arena, str_of(mac));
}

bool identity_receipt_valid(const struct identity *id, struct str profile_uid,
                            const struct receipt *receipt)
{
    char mac[CRYPTO_SHA256_HEX];
    if (!id->ready)
        return false;
    compute_mac(id, profile_uid, receipt, mac);
    return crypto_equal(str_of(mac), receipt->mac);
}

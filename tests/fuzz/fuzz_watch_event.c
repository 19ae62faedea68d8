/* One event of a watch: decoded into an object of a known type, or refused. Its Status, if it is
 * one, always makes an error. */
#include "fuzz.h"
#include "kube/client.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
    struct err err = ERR_INIT;
    enum kube_event_type type = KUBE_ERROR;
    _cleanup_(kube_object_unrefp) struct kube_object *object = NULL;
    struct str text = {(const char *)bytes, len};
    if (kube_decode_event(text, &type, &object, &err) != 0) {
        FUZZ_CHECK(err.code == ERR_PROTOCOL && err.message[0] != '\0' && !object);
        return 0;
    }
    FUZZ_CHECK(object && object->tree->type == JSON_OBJECT && object->references == 1);
    FUZZ_CHECK(type >= KUBE_ADDED && type <= KUBE_ERROR);
    kube_object_label(object, "app");
    kube_object_annotation(object, "k8s.io/initial-events-end");
    struct err status = ERR_INIT;
    FUZZ_CHECK(kube_status_error(object->tree, 0, &status) == status.code);
    FUZZ_CHECK(status.code < 0 && status.message[0] != '\0' && status.retry_after_ms >= 0);
    return 0;
}

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/list.h"

struct item {
    int value;
    struct list link;
};

static void test_order(void **state)
{
    (void)state;
    struct list head;
    struct item items[4];
    list_init(&head);
    assert_true(list_empty(&head));
    assert_null(list_pop(&head));
    for (int i = 0; i < 4; i++) {
        items[i].value = i;
        list_append(&head, &items[i].link);
    }
    list_remove(&items[1].link);
    assert_true(list_empty(&items[1].link));
    list_remove(&items[1].link); /* twice does nothing */
    static const int want[] = {0, 2, 3};
    for (size_t i = 0; i < ARRAY_SIZE(want); i++)
        assert_int_equal(CONTAINER_OF(list_pop(&head), struct item, link)->value, want[i]);
    assert_true(list_empty(&head));
}

static void test_removing_while_going_through(void **state)
{
    (void)state;
    struct list head;
    struct item items[5];
    list_init(&head);
    for (int i = 0; i < 5; i++) {
        items[i].value = i;
        list_append(&head, &items[i].link);
    }
    int seen = 0;
    LIST_FOREACH(&head, node)
    {
        struct item *item = CONTAINER_OF(node, struct item, link);
        assert_int_equal(item->value, seen++);
        if (item->value % 2 == 0)
            list_remove(node);
    }
    assert_int_equal(seen, 5);
    seen = 0;
    LIST_FOREACH(&head, node)
    seen += CONTAINER_OF(node, struct item, link)->value;
    assert_int_equal(seen, 1 + 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_removing_while_going_through),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

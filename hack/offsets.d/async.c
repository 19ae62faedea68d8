/* Compiled by hack/offsets against the headers of CPython 3.12 to 3.14; never run. Each FIELD
 * becomes four bytes of the section .offsets, in the order in which they stand here. */
#include <Python.h>
#include <stddef.h>
#include <stdint.h>

#include <internal/pycore_interp.h>

#define MINOR (PY_MINOR_VERSION)
#if MINOR >= 14
#include <internal/pycore_genobject.h>
#include <internal/pycore_tstate.h>
#endif
#if MINOR < 12 || MINOR > 14
#error "where these keep their tasks has not been looked at"
#endif

#define FIELD(name, value)                                                                         \
    __attribute__((section(".offsets"), used)) static const uint32_t name = (uint32_t)(value);

/* Objects and state of the module _asyncio are in none of the headers. What follows has the members
 * in the order of Modules/_asynciomodule.c, as far as they are needed. */
struct task {
    PyObject_HEAD PyObject *loop, *callback0, *context0, *callbacks, *exception, *exception_tb,
        *result, *source_tb, *cancel_msg;
#if MINOR >= 14
    PyObject *cancelled_exc, *awaited_by;
    int state;
    char is_task, awaited_by_is_set;
    unsigned char flags;
    int num_cancels_requested;
#elif MINOR >= 13
    PyObject *cancelled_exc;
    int state;
    unsigned flags;
    int num_cancels_requested;
#else
    int state, log_tb, blocking;
    PyObject *dict, *weakreflist, *cancelled_exc;
#endif
    PyObject *fut_waiter, *coro, *name;
};

#if MINOR >= 14
#define IN_THREAD_TASK   offsetof(_PyThreadStateImpl, asyncio_running_task)
#define IN_STATE_TYPE    0
#define IN_STATE_CURRENT 0
#else
struct state {
    PyTypeObject *future_iter_type, *task_step_type, *future_type, *task_type;
    PyObject *asyncio, *context_keyword, *current_tasks;
};
#define IN_THREAD_TASK   0
#define IN_STATE_TYPE    offsetof(struct state, task_type)
#define IN_STATE_CURRENT offsetof(struct state, current_tasks)
#endif

FIELD(minor, MINOR)
FIELD(task_coro, offsetof(struct task, coro))
FIELD(task_name, offsetof(struct task, name))
FIELD(coro_frame, offsetof(PyCoroObject, cr_iframe))
FIELD(thread_task, IN_THREAD_TASK)
FIELD(state_task_type, IN_STATE_TYPE)
FIELD(state_current, IN_STATE_CURRENT)

/* Compiled by hack/offsets against the headers of one version of CPython; never run. Each FIELD
 * becomes four bytes of the section .offsets, in the order in which they stand here. */
#include <Python.h>
#include <frameobject.h>
#include <stddef.h>
#include <stdint.h>

#define MINOR (PY_MINOR_VERSION)
#if MINOR >= 9
#include <internal/pycore_interp.h>
#include <internal/pycore_runtime.h>
#endif
#include <internal/pycore_pystate.h>
#if MINOR >= 11
#include <internal/pycore_frame.h>
#endif

#define FIELD(name, value)                                                                         \
    __attribute__((section(".offsets"), used)) static const uint32_t name = (uint32_t)(value);

#if MINOR >= 12
#define IN_RUNTIME_GIL     0
#define IN_INTERPRETER_GIL offsetof(PyInterpreterState, ceval.gil)
#else
#define IN_RUNTIME_GIL     offsetof(_PyRuntimeState, ceval.gil)
#define IN_INTERPRETER_GIL 0
#endif

#if MINOR >= 11
#define IN_INTERPRETER_THREADS offsetof(PyInterpreterState, threads.head)
#define IN_THREAD_FRAME        0
#define IN_THREAD_CFRAME       offsetof(PyThreadState, cframe)
#define IN_CFRAME              offsetof(_PyCFrame, current_frame)
#define IN_CFRAME_PREVIOUS     offsetof(_PyCFrame, previous)
#define IN_THREAD_NATIVE       offsetof(PyThreadState, native_thread_id)
#define IN_THREAD_CHUNK        offsetof(PyThreadState, datastack_chunk)
#define FRAME                  _PyInterpreterFrame
#define PREVIOUS               previous
#define INSTRUCTION            prev_instr
#define IN_OWNER               offsetof(FRAME, owner)
#define IN_GENERATOR           0
#define IN_STATE               0
#define IN_STACK_TOP           offsetof(FRAME, stacktop)
#if MINOR == 11
#define IN_ENTRY offsetof(FRAME, is_entry)
#else
#define IN_ENTRY 0
#endif
#define FRAME_HEAD    offsetof(FRAME, localsplus)
#define IN_QUALNAME   offsetof(PyCodeObject, co_qualname)
#define IN_CODE_BYTES offsetof(PyCodeObject, co_code_adaptive)
#define CODE_HEAD     offsetof(PyCodeObject, co_code_adaptive)
#else
#define IN_INTERPRETER_THREADS offsetof(PyInterpreterState, tstate_head)
#define IN_THREAD_FRAME        offsetof(PyThreadState, frame)
#define IN_THREAD_CFRAME       0
#define IN_CFRAME              0
#define IN_CFRAME_PREVIOUS     0
#define IN_THREAD_NATIVE       0
#define IN_THREAD_CHUNK        0
#define FRAME                  PyFrameObject
#define PREVIOUS               f_back
#define INSTRUCTION            f_lasti
#define IN_OWNER               0
#define IN_GENERATOR           offsetof(PyFrameObject, f_gen)
#define IN_STACK_TOP           0
#define IN_ENTRY               0
#if MINOR >= 10
#define STATE f_state
#else
#define STATE f_executing
#endif
#define IN_STATE      offsetof(PyFrameObject, STATE)
#define FRAME_HEAD    (IN_STATE + 1)
#define IN_QUALNAME   0
#define IN_CODE_BYTES 0
#define CODE_HEAD     sizeof(PyCodeObject)
#endif
#if MINOR >= 10
#define LINES co_linetable
#else
#define LINES co_lnotab
#endif

FIELD(minor, MINOR)
FIELD(runtime_interpreters, offsetof(_PyRuntimeState, interpreters.head))
FIELD(runtime_gil, IN_RUNTIME_GIL)
FIELD(interpreter_next, offsetof(PyInterpreterState, next))
FIELD(interpreter_threads, IN_INTERPRETER_THREADS)
FIELD(interpreter_gil, IN_INTERPRETER_GIL)
FIELD(gil_holder, offsetof(struct _gil_runtime_state, last_holder))
FIELD(gil_locked, offsetof(struct _gil_runtime_state, locked))
FIELD(thread_next, offsetof(PyThreadState, next))
FIELD(thread_interpreter, offsetof(PyThreadState, interp))
FIELD(thread_frame, IN_THREAD_FRAME)
FIELD(thread_cframe, IN_THREAD_CFRAME)
FIELD(cframe_frame, IN_CFRAME)
FIELD(cframe_previous, IN_CFRAME_PREVIOUS)
FIELD(thread_pthread, offsetof(PyThreadState, thread_id))
FIELD(thread_native, IN_THREAD_NATIVE)
FIELD(thread_chunk, IN_THREAD_CHUNK)
FIELD(frame_previous, offsetof(FRAME, PREVIOUS))
FIELD(frame_code, offsetof(FRAME, f_code))
FIELD(frame_instruction, offsetof(FRAME, INSTRUCTION))
FIELD(frame_owner, IN_OWNER)
FIELD(frame_generator, IN_GENERATOR)
FIELD(frame_state, IN_STATE)
FIELD(frame_stack_top, IN_STACK_TOP)
FIELD(frame_entry, IN_ENTRY)
FIELD(frame_head, FRAME_HEAD)
FIELD(code_file, offsetof(PyCodeObject, co_filename))
FIELD(code_name, offsetof(PyCodeObject, co_name))
FIELD(code_qualname, IN_QUALNAME)
FIELD(code_lines, offsetof(PyCodeObject, LINES))
FIELD(code_first_line, offsetof(PyCodeObject, co_firstlineno))
FIELD(code_bytes, IN_CODE_BYTES)
FIELD(code_head, CODE_HEAD)
FIELD(object_type, offsetof(PyObject, ob_type))
FIELD(text_length, offsetof(PyASCIIObject, length))
FIELD(text_state, offsetof(PyASCIIObject, state))
FIELD(text_ascii, sizeof(PyASCIIObject))
FIELD(text_compact, sizeof(PyCompactUnicodeObject))
FIELD(bytes_length, offsetof(PyBytesObject, ob_base.ob_size))
FIELD(bytes_bytes, offsetof(PyBytesObject, ob_sval))

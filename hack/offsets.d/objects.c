/* Compiled by hack/offsets against the headers of CPython 3.8 to 3.14; never run. Each FIELD
 * becomes four bytes of the section .offsets, in the order in which they stand here. */
#include <Python.h>
#include <stddef.h>
#include <stdint.h>

#define MINOR (PY_MINOR_VERSION)
#if MINOR >= 9
#include <internal/pycore_interp.h>
#endif
#include <internal/pycore_pystate.h>
#if MINOR >= 10
#include <internal/pycore_moduleobject.h>
#endif
#if MINOR >= 11
#include <internal/pycore_dict.h>
#include <internal/pycore_object.h>
#else
#include <longintrepr.h>
#endif
#if MINOR < 8 || MINOR > 14
#error "where these keep attributes has not been looked at"
#endif

#define FIELD(name, value)                                                                         \
    __attribute__((section(".offsets"), used)) static const uint32_t name = (uint32_t)(value);

/* pkg/sample/objects.c knows them. */
_Static_assert(Py_TPFLAGS_HEAPTYPE == 1ul << 9, "flags");
_Static_assert(Py_TPFLAGS_UNICODE_SUBCLASS == 1ul << 28, "flags");
_Static_assert(sizeof(digit) == 4, "digits of 30 bits");

#if MINOR < 10
/* In none of the headers: the members in the order of Objects/moduleobject.c. */
typedef struct {
    PyObject_HEAD PyObject *md_dict;
    struct PyModuleDef *md_def;
    void *md_state;
} PyModuleObject;
#endif

#if MINOR >= 12
#define IN_MODULES   offsetof(PyInterpreterState, imports.modules)
#define IN_INT_COUNT offsetof(PyLongObject, long_value.lv_tag)
#define INT_SHIFT    3
#define IN_DIGITS    offsetof(PyLongObject, long_value.ob_digit)
#else
#define IN_MODULES   offsetof(PyInterpreterState, modules)
#define IN_INT_COUNT offsetof(PyLongObject, ob_base.ob_size)
#define INT_SHIFT    0
#define IN_DIGITS    offsetof(PyLongObject, ob_digit)
#endif

#if MINOR >= 11
_Static_assert(Py_TPFLAGS_MANAGED_DICT == 1ul << 4, "flags");
_Static_assert(DICT_KEYS_GENERAL == 0 && DICT_KEYS_UNICODE == 1 && DICT_KEYS_SPLIT == 2, "kinds");
#define KEYS            struct _dictkeysobject
#define IN_KEYS_SIZE    0
#define IN_KEYS_BYTES   offsetof(KEYS, dk_log2_index_bytes)
#define IN_KEYS_KIND    offsetof(KEYS, dk_kind)
#define IN_VALUES_FIRST offsetof(PyDictValues, values)
#else
/* In none of the headers: the members in the order of Objects/dict-common.h. */
struct keys {
    Py_ssize_t dk_refcnt, dk_size;
    void *dk_lookup;
    Py_ssize_t dk_usable, dk_nentries;
    char dk_indices[];
};
#define KEYS            struct keys
#define IN_KEYS_SIZE    offsetof(KEYS, dk_size)
#define IN_KEYS_BYTES   0
#define IN_KEYS_KIND    0
#define IN_VALUES_FIRST 0
#endif

#if MINOR >= 13
_Static_assert(Py_TPFLAGS_INLINE_VALUES == 1ul << 2, "flags");
#define IN_VALUES_VALID offsetof(PyDictValues, valid)
#else
#define IN_VALUES_VALID 0
#endif

/* As inline functions of pycore_object.h say. */
#if MINOR >= 11
#define BEFORE_DICT (3 * sizeof(PyObject *))
#else
#define BEFORE_DICT 0
#endif
#if MINOR == 11
#define BEFORE_VALUES (4 * sizeof(PyObject *))
#else
#define BEFORE_VALUES 0
#endif
#ifdef MANAGED_DICT_OFFSET
_Static_assert(MANAGED_DICT_OFFSET == -(int)BEFORE_DICT, "before an instance");
#endif

FIELD(minor, MINOR)
FIELD(type_name, offsetof(PyTypeObject, tp_name))
FIELD(type_base, offsetof(PyTypeObject, tp_base))
FIELD(type_flags, offsetof(PyTypeObject, tp_flags))
FIELD(type_size, offsetof(PyTypeObject, tp_basicsize))
FIELD(type_dict, offsetof(PyTypeObject, tp_dictoffset))
FIELD(type_keys, offsetof(PyHeapTypeObject, ht_cached_keys))
FIELD(int_digits, IN_DIGITS)
FIELD(int_count, IN_INT_COUNT)
FIELD(int_shift, INT_SHIFT)
FIELD(interpreter_modules, IN_MODULES)
FIELD(module_dict, offsetof(PyModuleObject, md_dict))
FIELD(module_state, offsetof(PyModuleObject, md_state))
FIELD(dict_keys, offsetof(PyDictObject, ma_keys))
FIELD(dict_values, offsetof(PyDictObject, ma_values))
FIELD(keys_size, IN_KEYS_SIZE)
FIELD(keys_index_bytes, IN_KEYS_BYTES)
FIELD(keys_kind, IN_KEYS_KIND)
FIELD(keys_entries, offsetof(KEYS, dk_nentries))
FIELD(keys_head, offsetof(KEYS, dk_indices))
FIELD(values_first, IN_VALUES_FIRST)
FIELD(values_valid, IN_VALUES_VALID)
FIELD(instance_dict, BEFORE_DICT)
FIELD(instance_values, BEFORE_VALUES)

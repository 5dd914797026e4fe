/* Where rows are among others. */

#include "kernel.h"

/* Reading so many numbers takes less time than another thread needs to take the lock and give it back. */
enum { SHORT = 1 << 16 };

/* Writes the index in ``given`` at which each of ``kept`` first occurs; 0 if one does not occur. Both ascend. */
static int places_of(const uint32_t *given, size_t count, const uint32_t *kept, size_t wanted, uint32_t *places) {
    size_t at = 0;
    for (size_t row = 0; row < wanted; row++) {
        while (at < count && given[at] < kept[row]) at++;
        if (at == count || given[at] != kept[row]) return 0;
        places[row] = (uint32_t)at;
    }
    return 1;
}

PyObject *kernel_places(PyObject *module, PyObject *args) {
    Py_buffer given, kept;
    PyObject *result = NULL;
    int found;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*y*", &given, &kept)) return NULL;
    size_t count = (size_t)given.len / sizeof(uint32_t), wanted = (size_t)kept.len / sizeof(uint32_t);
    if (given.len % (Py_ssize_t)sizeof(uint32_t) || kept.len % (Py_ssize_t)sizeof(uint32_t) || count > UINT32_MAX) {
        PyErr_Format(PyExc_ValueError, "%zd and %zd bytes are not 32-bit numbers of rows", given.len, kept.len);
        goto end;
    }
    result = PyBytes_FromStringAndSize(NULL, kept.len);
    if (result == NULL) goto end;
    uint32_t *places = (uint32_t *)(void *)PyBytes_AsString(result);
    PyThreadState *other = count + wanted > SHORT ? PyEval_SaveThread() : NULL;
    found = places_of(given.buf, count, kept.buf, wanted, places);
    if (other != NULL) PyEval_RestoreThread(other);
    if (!found) {
        Py_DECREF(result);
        result = Py_NewRef(Py_None);
    }
end:
    PyBuffer_Release(&given);
    PyBuffer_Release(&kept);
    return result;
}

/* Entries of maps, sorted, and varints. */

#include "wire.h"

int entry_push(blob_t *entries, const entry_t *entry) {
    if (!blob_reserve(entries, sizeof *entry)) return 0;
    memcpy(entries->data + entries->size, entry, sizeof *entry);
    entries->size += sizeof *entry;
    return 1;
}

int entries_sort(blob_t *entries, size_t from, int (*compare)(const void *, const void *)) {
    size_t count = (entries->size - from) / sizeof(entry_t);
    if (count < 2) return 1;
    entry_t *first = (entry_t *)(entries->data + from);
    int sorted = 1;
    for (size_t at = 1; at < count && sorted; at++) sorted = compare(first + at - 1, first + at) < 0;
    if (sorted) return 1;
    qsort(first, count, sizeof *first, compare);
    for (size_t at = 1; at < count; at++)
        if (compare(first + at - 1, first + at) == 0) return 0;
    return 1;
}

PyObject *kernel_varints(PyObject *module, PyObject *args) {
    (void)module;
    enum { WIDTH = 5 };
    Py_buffer values;
    blob_t out = {0};
    if (!PyArg_ParseTuple(args, "y*", &values)) return NULL;
    size_t rows = (size_t)values.len / sizeof(uint32_t);
    int made = blob_reserve(&out, WIDTH * rows + sizeof(uint64_t));
    Py_BEGIN_ALLOW_THREADS
    for (size_t row = 0; made && row < rows; row++) {
        uint32_t value;
        memcpy(&value, (const uint8_t *)values.buf + row * sizeof value, sizeof value);
        uint64_t bits = (value & 0x7FU) | (uint64_t)(value & 0x7FU << 7) << 1 | (uint64_t)(value & 0x7FU << 14) << 2 |
                        (uint64_t)(value & 0x7FU << 21) << 3 | (uint64_t)(value >> 28) << 32 | 0x80808080U;
        memcpy(out.data + WIDTH * row, &bits, sizeof bits);
    }
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&values);
    out.size = WIDTH * rows;
    return made ? blob_take(&out) : PyErr_NoMemory();
}

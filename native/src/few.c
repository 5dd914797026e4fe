/* Whether columns have few distinct values. */

#include "kernel.h"

enum { MOST_ROWS = 0xFFFE, WORD = 8, WIDEST = 16 };
static const uint64_t FIRST_FACTOR = 0x9E3779B97F4A7C15, SECOND_FACTOR = 0xC2B2AE3D27D4EB4F;

/* A column without nulls, texts or values of ``width`` bytes, and how many distinct values count as few. */
typedef struct {
    views_t texts;
    Py_buffer values;
    Py_ssize_t width, rows, most;
    int has_few;
} column_t;

static const uint8_t *value_at(const column_t *column, Py_ssize_t row, size_t *size) {
    const uint8_t *limit;
    if (!column->width) return views_at(&column->texts, row, size, &limit);
    *size = (size_t)column->width;
    return (const uint8_t *)column->values.buf + row * column->width;
}

/* Up to eight bytes as a number; different values of the same size give different numbers. */
static inline uint64_t word_at(const uint8_t *value, size_t size) {
    uint64_t word;
    uint32_t first, last;
    if (size >= WORD) {
        memcpy(&word, value, WORD);
        return word;
    }
    if (size >= WORD / 2) {
        memcpy(&first, value, sizeof first);
        memcpy(&last, value + size - sizeof last, sizeof last);
        return first | (uint64_t)last << 32;
    }
    return size ? value[0] | (uint64_t)value[size / 2] << 8 | (uint64_t)value[size - 1] << 16 : 0;
}

static inline uint64_t mixed(uint64_t hash, uint64_t word) {
    hash = (hash ^ word) * SECOND_FACTOR;
    return hash ^ hash >> 29;
}

static inline uint64_t hash_of(const uint8_t *value, size_t size) {
    uint64_t hash = size * FIRST_FACTOR;
    size_t at = 0;
    for (; at + WORD < size; at += WORD) hash = mixed(hash, word_at(value + at, WORD));
    /* The last word overlaps the one before it. */
    return mixed(hash, at ? word_at(value + size - WORD, WORD) : word_at(value, size));
}

/* Looks for the column's values in ``slots``, which is as long as ``mask`` and one and has the number of a row, from 1, or 0. */
static int has_few(const column_t *column, uint16_t *slots, size_t mask) {
    Py_ssize_t found = 0;
    for (Py_ssize_t row = 0; row < column->rows; row++) {
        size_t size, other_size;
        const uint8_t *value = value_at(column, row, &size), *other;
        size_t slot = hash_of(value, size) & mask;
        for (; slots[slot]; slot = (slot + 1) & mask) {
            other = value_at(column, slots[slot] - 1, &other_size);
            if (size == other_size && same_bytes(value, other, size)) break;
        }
        if (slots[slot]) continue;
        if (found++ == column->most) return 0;
        slots[slot] = (uint16_t)(row + 1);
    }
    return 1;
}

/* Compares the values of all columns; 0 if memory ran out. */
static int columns_compare(column_t *columns, Py_ssize_t count) {
    blob_t slots = {0};
    for (Py_ssize_t index = 0; index < count; index++) {
        column_t *column = columns + index;
        size_t room = 64, most = (size_t)(column->most < column->rows ? column->most : column->rows);
        while (room < 2 * most + 2) room *= 2;
        slots.size = 0;
        if (!blob_resize(&slots, room * sizeof(uint16_t))) {
            blob_free(&slots);
            return 0;
        }
        column->has_few = has_few(column, (uint16_t *)(void *)slots.data, room - 1);
    }
    blob_free(&slots);
    return 1;
}

static void column_close(column_t *column) {
    views_close(&column->texts);
    if (column->values.obj != NULL) PyBuffer_Release(&column->values);
}

/* Opens a column as in the function's docstring; 0 and an exception if it is invalid. */
static int column_open(column_t *column, PyObject *spec) {
    PyObject *values, *buffers;
    memset(column, 0, sizeof *column);
    if (!PyTuple_Check(spec)) {
        PyErr_SetString(PyExc_TypeError, "a column must be a tuple");
        return 0;
    }
    if (!PyArg_ParseTuple(spec, "OnOn", &values, &column->width, &buffers, &column->most)) return 0;
    if (!column->width) {
        if (!views_open(&column->texts, values, buffers)) return 0;
        column->rows = column->texts.rows;
    } else {
        if (PyObject_GetBuffer(values, &column->values, PyBUF_SIMPLE)) return 0;
        if (column->width < 0 || column->width > WIDEST || column->values.len % column->width) {
            PyErr_Format(PyExc_ValueError, "values of %zd bytes, at most 16, cannot take %zd bytes in all", column->width, column->values.len);
            return 0;
        }
        column->rows = column->values.len / column->width;
    }
    if (column->rows <= MOST_ROWS && column->most >= 0) return 1;
    PyErr_Format(PyExc_ValueError, "%zd rows, at most 65534, cannot have few values of %zd", column->rows, column->most);
    return 0;
}

PyObject *kernel_few(PyObject *module, PyObject *specs) {
    (void)module;
    if (!PyTuple_Check(specs)) {
        PyErr_SetString(PyExc_TypeError, "the columns must be a tuple");
        return NULL;
    }
    Py_ssize_t count = PyTuple_Size(specs), opened = 0;
    column_t *columns = calloc((size_t)count + 1, sizeof *columns);
    PyObject *result = NULL;
    int made;
    if (columns == NULL) return PyErr_NoMemory();
    while (opened < count && column_open(columns + opened, PyTuple_GetItem(specs, opened))) opened++;
    if (opened < count) {
        column_close(columns + opened);
        goto end;
    }
    Py_BEGIN_ALLOW_THREADS
    made = columns_compare(columns, count);
    Py_END_ALLOW_THREADS
    result = made ? PyTuple_New(count) : PyErr_NoMemory();
    for (Py_ssize_t index = 0; index < count && result != NULL; index++)
        if (PyTuple_SetItem(result, index, PyBool_FromLong(columns[index].has_few))) Py_CLEAR(result);
end:
    while (opened) column_close(columns + --opened);
    free(columns);
    return result;
}

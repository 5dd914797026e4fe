/* Columns of a ledger segment that say how many rows each record became and where its first row was written. */

#include "kernel.h"

/* Opens an array of numbers of ``width`` bytes from Python. */
static int numbers_open(Py_buffer *numbers, PyObject *object, Py_ssize_t width) {
    if (PyObject_GetBuffer(object, numbers, PyBUF_SIMPLE)) return 0;
    if (numbers->len % width == 0) return 1;
    PyErr_Format(PyExc_ValueError, "numbers of %zd bytes cannot take %zd bytes in all", width, numbers->len);
    PyBuffer_Release(numbers);
    return 0;
}

/* Counts the rows of each record; 0 if a record has none and is not settled, is settled although it has rows, or is settled twice. */
static int rows_count(const Py_buffer *written, const Py_buffer *settled, size_t records, int32_t *rows) {
    const uint32_t *written_records = written->buf, *settled_records = settled->buf;
    size_t count = (size_t)written->len / 4, settled_count = (size_t)settled->len / 4, with_rows = 0;
    for (size_t index = 0; index < count; index++) {
        if (written_records[index] >= records) return 0;
        with_rows += !rows[written_records[index]]++;
    }
    if (with_rows + settled_count != records) return 0;
    for (size_t index = 0; index < settled_count; index++) {
        if (settled_records[index] >= records || rows[settled_records[index]]) return 0;
        rows[settled_records[index]] = -1;
    }
    for (size_t record = 0; record < records; record++) rows[record] = rows[record] < 0 ? 0 : rows[record];
    return 1;
}

PyObject *kernel_counted(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *one, *two, *result = NULL;
    Py_ssize_t records;
    Py_buffer written, settled;
    blob_t rows = {0};
    int room = 0, made = 0;
    if (!PyArg_ParseTuple(args, "OOn", &one, &two, &records) || !numbers_open(&written, one, 4)) return NULL;
    if (!numbers_open(&settled, two, 4)) {
        PyBuffer_Release(&written);
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    room = records >= 0 && blob_resize(&rows, 4 * (size_t)records);
    if (room) made = rows_count(&written, &settled, (size_t)records, (int32_t *)(void *)rows.data);
    Py_END_ALLOW_THREADS
    if (!room && records >= 0) PyErr_NoMemory();
    else result = made ? blob_take(&rows) : Py_NewRef(Py_None);
    blob_free(&rows);
    PyBuffer_Release(&written);
    PyBuffer_Release(&settled);
    return result;
}

/* Where rows were written: record, file and line of each. */
typedef struct {
    Py_buffer records, files, lines;
    blob_t validity, dest, row;
    Py_ssize_t valid;
} placed_t;

/* Finds the first row of each of ``records`` records; 0 if a row belongs to none of them. Rows that are not in record order are compared. */
static int first_rows_find(placed_t *placed, size_t records, uint32_t first) {
    const uint32_t *written_records = placed->records.buf, *lines = placed->lines.buf;
    const uint16_t *files = placed->files.buf;
    size_t count = (size_t)placed->records.len / 4;
    uint8_t *bits = placed->validity.data;
    uint32_t *dest = (uint32_t *)(void *)placed->dest.data, *row = (uint32_t *)(void *)placed->row.data;
    int ascending = 1;
    uint32_t most = 0;
    for (size_t index = 0; index < count; index++) {
        most = written_records[index] > most ? written_records[index] : most;
        ascending &= index == 0 || written_records[index] >= written_records[index - 1];
    }
    if (count && most >= records) return 0;
    for (size_t index = 0; index < count; index++) {
        uint32_t record = written_records[index], file = files[index] + first, line = lines[index];
        uint8_t bit = (uint8_t)(1u << (record & 7));
        int known = bits[record >> 3] & bit;
        if (known && (ascending || dest[record] < file || (dest[record] == file && row[record] <= line))) continue;
        placed->valid += !known;
        bits[record >> 3] |= bit;
        dest[record] = file;
        row[record] = line;
    }
    return 1;
}

PyObject *kernel_placed(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *parts[3], *result = NULL;
    Py_ssize_t records;
    unsigned int first;
    placed_t placed = {0};
    Py_buffer *const buffers[3] = {&placed.records, &placed.files, &placed.lines};
    const Py_ssize_t widths[3] = {4, 2, 4};
    int opened = 0, room = 0, made = 0;
    if (!PyArg_ParseTuple(args, "OOOnI", parts, parts + 1, parts + 2, &records, &first)) return NULL;
    while (opened < 3 && numbers_open(buffers[opened], parts[opened], widths[opened])) opened++;
    if (opened < 3) goto end;
    if (records < 0 || placed.files.len / 2 != placed.records.len / 4 || placed.lines.len != placed.records.len) {
        PyErr_SetString(PyExc_ValueError, "each row must have a record, a file and a line");
        goto end;
    }
    size_t all = (size_t)records;
    Py_BEGIN_ALLOW_THREADS
    room = blob_resize(&placed.validity, (all + 7) / 8) && blob_resize(&placed.dest, 4 * all) && blob_resize(&placed.row, 4 * all);
    if (room) made = first_rows_find(&placed, all, first);
    Py_END_ALLOW_THREADS
    if (!room) PyErr_NoMemory();
    else if (!made) PyErr_Format(PyExc_ValueError, "a row belongs to none of the %zd records", records);
    else {
        PyObject *validity = blob_take(&placed.validity), *dest = blob_take(&placed.dest), *row = blob_take(&placed.row);
        if (validity != NULL && dest != NULL && row != NULL) result = Py_BuildValue("nOOO", records - placed.valid, validity, dest, row);
        Py_XDECREF(validity);
        Py_XDECREF(dest);
        Py_XDECREF(row);
    }
end:
    while (opened) PyBuffer_Release(buffers[--opened]);
    blob_free(&placed.validity);
    blob_free(&placed.dest);
    blob_free(&placed.row);
    return result;
}

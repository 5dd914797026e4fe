/* Columns of any shape that are filled row by row; a row that turns out to be invalid is taken back. */

#ifndef STREAM_COLUMNS_H
#define STREAM_COLUMNS_H

#include "kernel.h"

/* How a column is stored in memory. */
enum form { VALUES, BITS, ITEMS, FIELDS };

/* A tree in one array: parents before their children, siblings adjacent. */
typedef struct {
    int form, count;  /* ITEMS has one child, FIELDS any number, the others none */
    size_t width;     /* bytes of a value, or of the end of a list */
    Py_ssize_t first; /* of its children */
} form_t;

/* Fills ``forms`` from tuples (form, width, count, first); 0 and an exception if they are not such a tree. */
int forms_fill(form_t *forms, PyObject *specs);

/* The rows of one column so far. Bits and values that were not set are zero, which means null. */
typedef struct {
    blob_t values;   /* values or bits; of a list, a zero and then the ends of its rows, 64 bits each */
    blob_t validity; /* one bit per row, set if it has a value */
    int64_t rows;    /* of the items of a list: their number */
    int64_t room;    /* of the items of a list: how many fit in the memory */
    int64_t valid;
} column_t;

typedef struct {
    const form_t *forms;
    Py_ssize_t count;
    column_t *columns;
    int64_t *kept; /* for each list, the number of items before this row */
    int lists;     /* there are any */
    blob_t side;   /* another buffer for views, its number, and its size before this row */
    uint32_t side_buffer;
    size_t side_kept;
    uint32_t record_buffer;
    const uint8_t *buffer; /* where it begins; for a record inline in its view, which is too short for views that need a buffer, the record */
    blob_t bad;            /* a byte per row, 1 where it was taken back */
    Py_ssize_t wrong;
    int failed; /* memory ran out */
} table_t;

/* A tuple (bad, wrong, side, columns) for Python, filled from the records by ``fill``, which gets ``run`` and runs without the GIL. NULL and
   an exception if memory runs out, for which ``fill`` returns 0, or if the records are not views. */
PyObject *table_made(table_t *table, const form_t *forms, Py_ssize_t count, PyObject *views, PyObject *buffers,
                     int (*fill)(void *run, const views_t *records), void *run);

/* To be called before ``row`` is filled; sets ``text`` to its record. */
void row_begin(table_t *table, const views_t *records, Py_ssize_t row, text_t *text);
/* To be called after it; with ``good`` 0, the row becomes null in all columns and is marked. */
void row_end(table_t *table, int64_t row, int good);

/* Begins an item of the list ``at``; returns its row, or -1 if memory ran out. End it with ``item_end``. */
int64_t item_begin(table_t *table, Py_ssize_t at);
void item_end(table_t *table, Py_ssize_t at, int64_t row);

static inline void set_valid(column_t *column, int64_t row) {
    column->validity.data[row >> 3] |= (uint8_t)(1u << (row & 7));
    column->valid++;
}

/* A view of bytes of the record itself. */
static inline void put_part(const table_t *table, view_t *view, const uint8_t *from, size_t size) {
    view_set(view, from, size, table->record_buffer, (size_t)(from - table->buffer));
}

#endif

/* Columns of any shape that are filled row by row; a row that was not right after all is taken back. */

#ifndef STREAM_COLUMNS_H
#define STREAM_COLUMNS_H

#include "kernel.h"

/* How a column lies in memory. */
enum form { VALUES, BITS, ITEMS, FIELDS };

/* A tree in one array: parents before their children, the children of one beside each other. */
typedef struct {
    int form, count;  /* ITEMS has one child, FIELDS any number, the others none */
    size_t width;     /* bytes of a value, or of the end of a list */
    Py_ssize_t first; /* of its children */
} form_t;

/* From tuples (form, width, count, first) into as many forms; 0 and an exception if they are no such tree. */
int forms_fill(form_t *forms, PyObject *specs);

/* The rows of one column so far. All bits and values that nobody set are zero: null. */
typedef struct {
    blob_t values;   /* values or bits; of a list the ends of its rows, 64 bits each, behind a zero */
    blob_t validity; /* a bit per row, set where there is a value */
    int64_t rows;    /* of the items of a list: how many there are */
    int64_t room;    /* of the items of a list: how many there is memory for */
    int64_t valid;
} column_t;

typedef struct {
    const form_t *forms;
    Py_ssize_t count;
    column_t *columns;
    int64_t *kept; /* rows of each list's items before this row */
    int lists;     /* there are any */
    blob_t side;   /* one more buffer for views, its number, and how much of it there was before this row */
    uint32_t side_buffer;
    size_t side_kept;
    uint32_t record_buffer;
    const uint8_t *buffer; /* where it begins; of a record that lies in its view, which is too short for values that need one, the record */
    blob_t bad;            /* a byte per row, 1 where it was taken back */
    Py_ssize_t wrong;
    int failed; /* memory ran out */
} table_t;

/* The columns (bad, wrong, side, columns) for Python that ``fill``, which gets ``run`` and does without the interpreter's lock, puts records
   into; NULL and an exception if there is no memory, as ``fill`` says by 0, or if the records are no views. */
PyObject *table_made(table_t *table, const form_t *forms, Py_ssize_t count, PyObject *views, PyObject *buffers,
                     int (*fill)(void *run, const views_t *records), void *run);

/* Before ``row`` is filled from the record that stands there: where its text is. */
void row_begin(table_t *table, const views_t *records, Py_ssize_t row, text_t *text);
/* After it: with ``good`` 0 everything of the row is made null and the row is marked. */
void row_end(table_t *table, int64_t row, int good);

/* One more row of the items of the list ``at``, or -1 where there is no memory. End it with ``item_end``. */
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

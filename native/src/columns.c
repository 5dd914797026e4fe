/* Columns that grow by rows without the GIL, and are then handed to Python. */

#include "columns.h"

static int is_form(const form_t *form, int width, Py_ssize_t at, Py_ssize_t count) {
    if (form->count < 0 || (form->count && (form->first <= at || form->first > count - form->count))) return 0;
    switch (form->form) {
    case VALUES: return !form->count && (width == 4 || width == 8 || width == 16);
    case BITS: return !form->count && !width;
    case ITEMS: return form->count == 1 && width == (int)sizeof(int64_t);
    case FIELDS: return form->count && !width;
    default: return 0;
    }
}

int forms_fill(form_t *forms, PyObject *specs) {
    Py_ssize_t count = PyTuple_Size(specs);
    for (Py_ssize_t at = 0; at < count; at++) {
        form_t *form = forms + at;
        PyObject *spec = PyTuple_GetItem(specs, at);
        int width;
        if (!PyTuple_Check(spec)) PyErr_SetString(PyExc_TypeError, "a form must be a tuple");
        else if (PyArg_ParseTuple(spec, "iiin", &form->form, &width, &form->count, &form->first) && !is_form(form, width, at, count))
            PyErr_SetString(PyExc_ValueError, "a form must be (form, width, count, first)");
        if (PyErr_Occurred()) return 0;
        form->width = (size_t)width;
    }
    return 1;
}

/* Makes room for ``rows`` rows in a column and in all columns with the same number of rows. */
static int widen(table_t *table, Py_ssize_t at, int64_t rows) {
    const form_t *form = table->forms + at;
    column_t *column = table->columns + at;
    size_t bits = (size_t)(rows + 7) / 8;
    size_t bytes = form->form == BITS ? bits : ((size_t)rows + (form->form == ITEMS)) * form->width;
    if (!blob_resize(&column->validity, bits) || !blob_resize(&column->values, bytes)) return !(table->failed = 1);
    if (form->form == FIELDS)
        for (int child = 0; child < form->count; child++)
            if (!widen(table, form->first + child, rows)) return 0;
    return 1;
}

static int table_open(table_t *table, const form_t *forms, Py_ssize_t count, Py_ssize_t rows, Py_ssize_t buffers) {
    memset(table, 0, sizeof *table);
    table->forms = forms;
    table->count = count;
    table->columns = calloc((size_t)count, sizeof *table->columns);
    table->kept = calloc((size_t)count, sizeof *table->kept);
    table->side_buffer = (uint32_t)buffers;
    for (Py_ssize_t at = 0; at < count; at++) table->lists |= forms[at].form == ITEMS;
    return table->columns != NULL && table->kept != NULL && blob_resize(&table->bad, (size_t)rows + 1) && widen(table, 0, rows);
}

static void table_close(table_t *table) {
    for (Py_ssize_t at = 0; table->columns != NULL && at < table->count; at++) {
        blob_free(&table->columns[at].values);
        blob_free(&table->columns[at].validity);
    }
    free(table->columns);
    free(table->kept);
    blob_free(&table->side);
    blob_free(&table->bad);
}

/* Ends row ``row`` of every list, at or below the column ``at``, that has as many rows. */
static void end_lists(table_t *table, Py_ssize_t at, int64_t row) {
    const form_t *form = table->forms + at;
    if (form->form == ITEMS) ((int64_t *)table->columns[at].values.data)[row + 1] = table->columns[form->first].rows;
    else if (form->form == FIELDS)
        for (int child = 0; child < form->count; child++) end_lists(table, form->first + child, row);
}

/* Clears the bits ``from`` to ``to``; returns how many were set. */
static int64_t clear_bits(uint8_t *bits, int64_t from, int64_t to) {
    int64_t set = 0;
    for (int64_t bit = from; bit < to; bit++) {
        set += bits[bit >> 3] >> (bit & 7) & 1;
        bits[bit >> 3] &= (uint8_t)~(1u << (bit & 7));
    }
    return set;
}

/* Removes rows ``from`` to ``to`` in every column with as many rows as the column ``at``, and the items of lists after those kept. */
static void take_back(table_t *table, Py_ssize_t at, int64_t from, int64_t to) {
    const form_t *form = table->forms + at;
    column_t *column = table->columns + at;
    size_t width = form->width;
    column->valid -= clear_bits(column->validity.data, from, to);
    if (form->form == BITS) clear_bits(column->values.data, from, to);
    else if (form->form == ITEMS) memset(column->values.data + (size_t)(from + 1) * width, 0, (size_t)(to - from) * width);
    else if (width) memset(column->values.data + (size_t)from * width, 0, (size_t)(to - from) * width);
    if (form->form == FIELDS)
        for (int child = 0; child < form->count; child++) take_back(table, form->first + child, from, to);
    if (form->form == ITEMS && table->columns[form->first].rows > table->kept[form->first]) {
        int64_t kept = table->kept[form->first], had = table->columns[form->first].rows;
        table->columns[form->first].rows = kept;
        take_back(table, form->first, kept, had);
    }
}

void row_begin(table_t *table, const views_t *records, Py_ssize_t row, text_t *text) {
    const view_t *view = records->first + row;
    size_t size;
    text->at = views_at(records, row, &size, &text->limit);
    text->end = text->at + size;
    table->record_buffer = view->size > INLINE ? view->buffer : 0;
    table->buffer = view->size > INLINE ? records->buffers[view->buffer].buf : text->at;
    table->side_kept = table->side.size;
    for (Py_ssize_t at = 0; table->lists && at < table->count; at++) table->kept[at] = table->columns[at].rows;
}

void row_end(table_t *table, int64_t row, int good) {
    if (!good) {
        table->bad.data[row] = 1;
        table->wrong++;
        take_back(table, 0, row, row + 1);
        table->side.size = table->side_kept;
    }
    if (table->lists) end_lists(table, 0, row);
}

int64_t item_begin(table_t *table, Py_ssize_t at) {
    Py_ssize_t first = table->forms[at].first;
    column_t *item = table->columns + first;
    if (item->rows == item->room) {
        item->room += item->room / 2 + 16;
        if (!widen(table, first, item->room)) return -1;
    }
    return item->rows++;
}

void item_end(table_t *table, Py_ssize_t at, int64_t row) { end_lists(table, table->forms[at].first, row); }

static PyObject *column_taken(table_t *table, Py_ssize_t at, int64_t rows) {
    const form_t *form = table->forms + at;
    column_t *column = table->columns + at;
    int64_t items = form->form == ITEMS ? table->columns[form->first].rows : rows, nulls = rows - column->valid;
    PyObject *values = blob_take(&column->values), *validity = NULL, *children = NULL, *made = NULL;
    if (nulls) validity = blob_take(&column->validity);
    else {
        validity = Py_None;
        Py_INCREF(validity);
    }
    if (values != NULL && validity != NULL && (children = PyTuple_New(form->count)) != NULL) {
        int good = 1;
        for (int child = 0; child < form->count && good; child++) {
            PyObject *inner = column_taken(table, form->first + child, items);
            good = inner != NULL && !PyTuple_SetItem(children, child, inner);
        }
        if (good) made = Py_BuildValue("LLOOO", (long long)rows, (long long)nulls, validity, values, children);
    }
    Py_XDECREF(values);
    Py_XDECREF(validity);
    Py_XDECREF(children);
    return made;
}

static PyObject *table_taken(table_t *table, Py_ssize_t rows) {
    PyObject *made = NULL;
    if (table->failed || table->columns == NULL) return PyErr_NoMemory();
    table->bad.size = (size_t)rows;
    PyObject *marks = blob_take(&table->bad), *side = blob_take(&table->side), *columns = column_taken(table, 0, rows);
    if (marks != NULL && side != NULL && columns != NULL) made = Py_BuildValue("OnOO", marks, table->wrong, side, columns);
    Py_XDECREF(marks);
    Py_XDECREF(side);
    Py_XDECREF(columns);
    return made;
}

PyObject *table_made(table_t *table, const form_t *forms, Py_ssize_t count, PyObject *views, PyObject *buffers,
                     int (*fill)(void *run, const views_t *records), void *run) {
    views_t records;
    if (!views_open(&records, views, buffers)) return NULL;
    Py_ssize_t rows = records.rows;
    int good = table_open(table, forms, count, rows, records.count);
    Py_BEGIN_ALLOW_THREADS;
    good = good && fill(run, &records);
    Py_END_ALLOW_THREADS;
    views_close(&records);
    PyObject *made = good ? table_taken(table, rows) : PyErr_NoMemory();
    table_close(table);
    return made;
}

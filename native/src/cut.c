/* Texts split into fields at single separating characters. */

#include "kernel.h"

enum { FIELDS = 64 };

typedef struct {
    int separator;   /* the byte after the field, or -1: it extends to the end */
    Py_ssize_t skip; /* bytes from there to the next field */
    int kept;
    blob_t views;
} field_t;

typedef struct {
    field_t fields[FIELDS];
    Py_ssize_t count, skip;
} cut_t;

static int cut_row(cut_t *cut, const views_t *texts, Py_ssize_t row) {
    size_t size;
    const uint8_t *limit, *text = views_at(texts, row, &size, &limit), *end = text + size, *at = text;
    if (end - at < cut->skip) return 0;
    at += cut->skip;
    for (Py_ssize_t place = 0; place < cut->count; place++) {
        field_t *field = cut->fields + place;
        const uint8_t *close = end;
        if (field->separator >= 0) {
            for (close = at; close < end && *close != field->separator; close++);
            if (end - close < field->skip || close == end) return 0;
        }
        if (field->kept) view_part(texts, row, text, at, (size_t)(close - at), (view_t *)field->views.data + row);
        at = close + field->skip;
    }
    return 1;
}

static int cut_all(cut_t *cut, const views_t *texts, const uint8_t *chosen) {
    for (Py_ssize_t place = 0; place < cut->count; place++)
        if (cut->fields[place].kept && !blob_resize(&cut->fields[place].views, (size_t)texts->rows * sizeof(view_t))) return -1;
    for (Py_ssize_t row = 0; row < texts->rows; row++)
        if ((chosen == NULL || chosen[row]) && !cut_row(cut, texts, row)) return 0;
    return 1;
}

static int read_fields(cut_t *cut, PyObject *fields) {
    cut->count = PyTuple_Check(fields) ? PyTuple_Size(fields) : -1;
    if (cut->count < 0 || cut->count > FIELDS || cut->skip < 0) {
        PyErr_Format(PyExc_ValueError, "fields must be a tuple of at most %d", FIELDS);
        return 0;
    }
    for (Py_ssize_t place = 0; place < cut->count; place++) {
        field_t *field = cut->fields + place;
        if (!PyArg_ParseTuple(PyTuple_GetItem(fields, place), "inp", &field->separator, &field->skip, &field->kept)) return 0;
        if (field->separator > 0x7F || field->skip < 0) {
            PyErr_SetString(PyExc_ValueError, "a separator must begin with an ASCII character");
            return 0;
        }
    }
    return 1;
}

static PyObject *kept_views(cut_t *cut) {
    Py_ssize_t kept = 0, at = 0;
    for (Py_ssize_t place = 0; place < cut->count; place++) kept += cut->fields[place].kept;
    PyObject *result = PyTuple_New(kept);
    for (Py_ssize_t place = 0; result != NULL && place < cut->count; place++) {
        if (!cut->fields[place].kept) continue;
        PyObject *views = blob_take(&cut->fields[place].views);
        if (views == NULL) Py_CLEAR(result);
        else PyTuple_SetItem(result, at++, views);
    }
    return result;
}

PyObject *kernel_cut(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *views, *buffers, *fields, *result = NULL;
    Py_buffer chosen = {0};
    views_t texts;
    int made;
    cut_t *cut = calloc(1, sizeof *cut);
    if (cut == NULL) return PyErr_NoMemory();
    if (PyArg_ParseTuple(args, "OOz*nO", &views, &buffers, &chosen, &cut->skip, &fields) && read_fields(cut, fields) &&
        views_open(&texts, views, buffers)) {
        if (chosen.buf != NULL && chosen.len != texts.rows) {
            PyErr_SetString(PyExc_ValueError, "the mask of chosen rows must have one byte per row");
        } else {
            Py_BEGIN_ALLOW_THREADS
            made = cut_all(cut, &texts, chosen.buf);
            Py_END_ALLOW_THREADS
            result = made < 0 ? PyErr_NoMemory() : made ? kept_views(cut) : Py_NewRef(Py_None);
        }
        views_close(&texts);
    }
    for (Py_ssize_t place = 0; place < FIELDS; place++) blob_free(&cut->fields[place].views);
    if (chosen.obj != NULL) PyBuffer_Release(&chosen);
    free(cut);
    return result;
}

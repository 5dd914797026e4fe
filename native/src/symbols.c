/* Names that are part of a plan. */

#include "symbols.h"

int symbols_add(symbols_t *symbols, PyObject *name) {
    char *text;
    Py_ssize_t size;
    view_t *views = realloc(symbols->views, (size_t)(symbols->count + 1) * sizeof *views);
    if (views == NULL) return PyErr_NoMemory() != NULL;
    symbols->views = views;
    view_t *view = views + symbols->count++;
    memset(view, 0, sizeof *view);
    view->size = NO_SYMBOL;
    if (name == Py_None) return 1;
    if (PyBytes_AsStringAndSize(name, &text, &size)) return 0;
    if (size > INT32_MAX / 2 || symbols->text.size > INT32_MAX / 2) {
        PyErr_SetString(PyExc_ValueError, "the names of a plan are too long");
        return 0;
    }
    view_set(view, (const uint8_t *)text, (size_t)size, 0, symbols->text.size);
    if (size <= INLINE) return 1;
    if (!blob_reserve(&symbols->text, (size_t)size)) return PyErr_NoMemory() != NULL;
    memcpy(symbols->text.data + symbols->text.size, text, (size_t)size);
    symbols->text.size += (size_t)size;
    return 1;
}

void symbols_free(symbols_t *symbols) {
    free(symbols->views);
    blob_free(&symbols->text);
}

int symbols_copy(const symbols_t *symbols, table_t *table) {
    const blob_t *text = &symbols->text;
    if (!text->size) return 1;
    if (!blob_reserve(&table->side, text->size)) return 0;
    memcpy(table->side.data, text->data, text->size);
    table->side.size = text->size;
    return 1;
}

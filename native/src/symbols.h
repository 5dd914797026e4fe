/* Names that are part of a plan, as views that columns copy. */

#ifndef STREAM_SYMBOLS_H
#define STREAM_SYMBOLS_H

#include "columns.h"

typedef struct {
    view_t *views; /* if not inline, ``offset`` points into ``text`` */
    Py_ssize_t count;
    blob_t text;
} symbols_t;

#define NO_SYMBOL UINT32_MAX

/* Adds a name given as bytes, or None for a symbol that the reader does not know. 0 and an exception if it is neither. */
int symbols_add(symbols_t *symbols, PyObject *name);
void symbols_free(symbols_t *symbols);
/* Copies the names that are too long to be inline to the beginning of the table's side buffer; 0 if memory ran out. */
int symbols_copy(const symbols_t *symbols, table_t *table);

/* 0 if the symbol is unknown. */
static inline int put_symbol(const symbols_t *symbols, const table_t *table, Py_ssize_t symbol, view_t *view) {
    *view = symbols->views[symbol];
    if (view->size > INLINE) view->buffer = table->side_buffer;
    return view->size != NO_SYMBOL;
}

#endif

/* Names that a plan knows beforehand, as views that columns take over. */

#ifndef STREAM_SYMBOLS_H
#define STREAM_SYMBOLS_H

#include "columns.h"

typedef struct {
    view_t *views; /* of those not inline ``offset`` leads into ``text`` */
    Py_ssize_t count;
    blob_t text;
} symbols_t;

#define NO_SYMBOL UINT32_MAX

/* One more, of bytes, or of None: a symbol that is none. 0 and an exception if it is neither. */
int symbols_add(symbols_t *symbols, PyObject *name);
void symbols_free(symbols_t *symbols);
/* Those that are too long to lie in a view stand first in the table's side buffer; 0 where there is no memory. */
int symbols_copy(const symbols_t *symbols, table_t *table);

/* 0 where the symbol is none. */
static inline int put_symbol(const symbols_t *symbols, const table_t *table, Py_ssize_t symbol, view_t *view) {
    *view = symbols->views[symbol];
    if (view->size > INLINE) view->buffer = table->side_buffer;
    return view->size != NO_SYMBOL;
}

#endif

/* Many messages of one width that differ in a few fields. */

#ifndef STREAM_MESSAGES_H
#define STREAM_MESSAGES_H

#include "kernel.h"

/* A message's bytes from ``offset`` on come from a table of rows; a table of one row is there for all messages (``stride`` 0). */
typedef struct {
    Py_buffer table;
    size_t offset, width;
    Py_ssize_t stride;
} field_t;

typedef struct {
    field_t *fields;
    Py_ssize_t opened, start, count;
    Py_buffer chosen; /* numbers of rows, uint32; without buffer: row after row */
    uint8_t *shared;  /* a message of which the fields' bytes are still missing, or are those of some message */
    size_t width;
} messages_t;

static inline Py_ssize_t row_of(const messages_t *all, Py_ssize_t number) {
    Py_ssize_t row = all->start + number;
    return all->chosen.buf != NULL ? (Py_ssize_t)((const uint32_t *)all->chosen.buf)[row] : row;
}

static inline const uint8_t *field_at(const field_t *field, Py_ssize_t row) { return (const uint8_t *)field->table.buf + row * field->stride; }

/* Puts a message together in ``shared``. */
static inline void weave(messages_t *all, Py_ssize_t number) {
    Py_ssize_t row = row_of(all, number);
    for (const field_t *field = all->fields; field < all->fields + all->opened; field++)
        if (field->width) memcpy(all->shared + field->offset, field_at(field, row), field->width);
}

/* What stands around blocks of messages, with eight bytes more behind it, and the blocks. */
typedef struct {
    blob_t head, tail;
    messages_t *blocks;
    Py_ssize_t count;
} request_t;

/* From (head, blocks, tail), a block being (pieces, numbers of rows or None, first, count); 0 and an exception if they are not that.
   ``request`` is all zero before, and to be closed in any case. */
int request_open(request_t *request, PyObject *args);
void request_close(request_t *request);

#endif

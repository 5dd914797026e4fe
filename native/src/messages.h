/* Many messages of equal width that differ in a few fields. */

#ifndef STREAM_MESSAGES_H
#define STREAM_MESSAGES_H

#include "kernel.h"

/* The ``width`` bytes of a message at ``offset``, which come from a table of rows; a table with one row is for all messages (stride 0). */
typedef struct {
    Py_buffer table;
    size_t offset, width;
    Py_ssize_t stride;
} field_t;

typedef struct {
    field_t *fields;
    Py_ssize_t opened, start, count;
    Py_buffer chosen; /* row numbers, uint32; without a buffer, rows are used in order */
    uint8_t *shared;  /* a message: the shared bytes, and in the fields those of the message assembled last */
    size_t width;
} messages_t;

static inline Py_ssize_t row_of(const messages_t *all, Py_ssize_t number) {
    Py_ssize_t row = all->start + number;
    return all->chosen.buf != NULL ? (Py_ssize_t)((const uint32_t *)all->chosen.buf)[row] : row;
}

static inline const uint8_t *field_at(const field_t *field, Py_ssize_t row) { return (const uint8_t *)field->table.buf + row * field->stride; }

/* Assembles message ``number`` in ``shared``. */
static inline void assemble(messages_t *all, Py_ssize_t number) {
    Py_ssize_t row = row_of(all, number);
    for (const field_t *field = all->fields; field < all->fields + all->opened; field++)
        if (field->width) memcpy(all->shared + field->offset, field_at(field, row), field->width);
}

/* A request: ``head``, blocks of messages, ``tail``. Both blobs have eight bytes more than their size. */
typedef struct {
    blob_t head, tail;
    messages_t *blocks;
    Py_ssize_t count;
} request_t;

/* Opens (head, blocks, tail), where a block is (pieces, row numbers or None, start, count); 0 and an exception if they are invalid.
   ``request`` must be all zeros before, and must be closed in either case. */
int request_open(request_t *request, PyObject *args);
void request_close(request_t *request);

#endif

/* Many messages of one width that differ in a few fields. */

#ifndef STREAM_MESSAGES_H
#define STREAM_MESSAGES_H

#include "checksum.h"
#include "deflate.h"

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

/* Where a member of gzip is written. */
typedef struct {
    blob_t *blob;
    bits_t out;
    const codes_t *codes;
    uint32_t sum;
} member_t;

/* Room for what ``bytes`` become at most, and the bits that wait; 0 where there is no memory. */
static inline int room(member_t *member, bits_t *out, size_t bytes) {
    blob_t *blob = member->blob;
    blob->size = (size_t)(out->at - blob->data);
    if (blob->room - blob->size >= 2 * bytes + 64) return 1;
    if (!blob_reserve(blob, 2 * bytes + 64)) return 0;
    out->at = blob->data + blob->size;
    return 1;
}

/* Where messages differ from the ones before them, as far as is known. */
typedef struct pattern pattern_t;

/* What is to be expected of the messages, counted for codes; NULL where there is no memory. */
pattern_t *pattern_learn(messages_t *all, counts_t *counts);
void pattern_free(pattern_t *pattern);
/* Writes all messages; 0 where there is no memory. */
int pattern_write(pattern_t *pattern, member_t *member);

#endif

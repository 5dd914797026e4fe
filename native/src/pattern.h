/* Compression of messages of equal width: what repeats from one to the next is learned from the first of them. */

#ifndef STREAM_PATTERN_H
#define STREAM_PATTERN_H

#include "checksum.h"
#include "deflate.h"
#include "messages.h"

/* A gzip member that is being written; ``sum`` is the CRC-32 so far. */
typedef struct {
    blob_t *blob;
    bits_t out;
    const codes_t *codes;
    uint32_t sum;
} member_t;

/* Makes room for the largest encoding of ``bytes`` bytes and for pending bits; 0 if memory ran out. */
static inline int room(member_t *member, bits_t *out, size_t bytes) {
    blob_t *blob = member->blob;
    blob->size = (size_t)(out->at - blob->data);
    if (blob->room - blob->size >= 2 * bytes + 64) return 1;
    if (!blob_reserve(blob, 2 * bytes + 64)) return 0;
    out->at = blob->data + blob->size;
    return 1;
}

/* The bytes in which messages are known to differ from their predecessors. */
typedef struct pattern pattern_t;

/* Learns the pattern of the messages, and adds the symbols to expect to ``counts``; NULL if memory ran out. */
pattern_t *pattern_learn(messages_t *all, counts_t *counts);
void pattern_free(pattern_t *pattern);
/* Writes all messages; 0 if memory ran out. */
int pattern_write(pattern_t *pattern, member_t *member);

#endif

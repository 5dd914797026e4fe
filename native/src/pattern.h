/* How messages of one width are compressed: what repeats from one to the next is learnt from the first of them. */

#ifndef STREAM_PATTERN_H
#define STREAM_PATTERN_H

#include "checksum.h"
#include "deflate.h"
#include "messages.h"

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

/* The bytes in which messages of equal width differ. */

#ifndef STREAM_DIFFERENCES_H
#define STREAM_DIFFERENCES_H

#include "messages.h"

/* The number of messages from which differences are learned: over 128, so that the second byte of an ascending varint changes once. */
enum { LEARN_COUNT = 160 };

/* The part of a field in which messages differ (none if ``end`` is 0), and the number of outliers, which also differed outside it. */
typedef struct {
    size_t first, end, outliers;
} extent_t;

/* Up to eight bytes of a field. */
typedef struct {
    const uint8_t *rows;
    Py_ssize_t stride;
    size_t size, position; /* in a message */
    uint64_t base, fixed;  /* the value in the message that others are compared with, and a mask of the bits that must not differ */
    uint64_t factor;       /* for the checksum */
} word_t;

/* Up to eight bytes as a number, little-endian. */
static inline uint64_t load(const uint8_t *text, size_t size) {
    uint64_t word = 0;
    uint32_t low, high;
    if (size >= 8)
        memcpy(&word, text, 8);
    else if (size >= 4) {
        memcpy(&low, text, 4);
        memcpy(&high, text + size - 4, 4);
        word = low | (uint64_t)high << 8 * (size - 4);
    } else
        for (size_t position = 0; position < size; position++) word |= (uint64_t)text[position] << 8 * position;
    return word;
}

/* The bits of a word that differ from ``base`` in row ``row``. */
static inline uint64_t word_changes(const word_t *word, Py_ssize_t row) { return load(word->rows + row * word->stride, word->size) ^ word->base; }

/* Finds the extents of all fields from the first ``known`` messages, of which the first is in ``shared``; 0 if memory ran out. */
int extents_learn(const messages_t *all, Py_ssize_t known, extent_t *extents);
/* Widens the extent of a field to cover the bytes in which ``now`` differs from ``before``; returns whether that was necessary. */
int extent_widen(extent_t *extent, const uint8_t *now, const uint8_t *before, size_t width);
/* Splits all fields into words, with the message in ``shared`` as base; returns their number, at most MAX_WORDS. */
size_t words_find(const messages_t *all, const extent_t *extents, word_t *words);
#define MAX_WORDS(all) ((size_t)(all)->opened + (all)->width / 8 + 1)

#endif

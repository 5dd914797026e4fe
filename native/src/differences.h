/* Where messages of one width differ. */

#ifndef STREAM_DIFFERENCES_H
#define STREAM_DIFFERENCES_H

#include "messages.h"

/* So many messages show where fields differ. More than 128, in which the second byte of a counting varint differs once. */
enum { LEARNT_FROM = 160 };

/* The part of a field in which messages differ, none if ``end`` is 0, and how many messages have differed outside of it, too. */
typedef struct {
    size_t first, end, odd;
} extent_t;

/* Up to eight bytes of a field. */
typedef struct {
    const uint8_t *rows;
    Py_ssize_t stride;
    size_t size, place;    /* in a message */
    uint64_t base, still;  /* their value in the message that others are compared with, and the bits that no message may change */
    uint64_t factor;       /* of a check sum */
} word_t;

/* Up to eight bytes as a number, the first one lowest. */
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
        for (size_t place = 0; place < size; place++) word |= (uint64_t)text[place] << 8 * place;
    return word;
}

/* The bits of a word that differ in row ``row``. */
static inline uint64_t word_changes(const word_t *word, Py_ssize_t row) { return load(word->rows + row * word->stride, word->size) ^ word->base; }

/* The extents of all fields, from the first ``known`` messages, the first of which is in ``shared``; 0 where there is no memory. */
int extents_learn(const messages_t *all, Py_ssize_t known, extent_t *extents);
/* Widens the extent of a field until it covers where ``now`` differs from ``then``; whether it had to. */
int extent_widen(extent_t *extent, const uint8_t *now, const uint8_t *then, size_t width);
/* The words of all fields, compared with the message in ``shared``; returns their number, at most WORDS_AT_MOST. */
size_t words_find(const messages_t *all, const extent_t *extents, word_t *words);
#define WORDS_AT_MOST(all) ((size_t)(all)->opened + (all)->width / 8 + 1)

#endif

/* Writers of bits and of numbers: the lowest comes first. */

#ifndef STREAM_BITS_H
#define STREAM_BITS_H

#include "kernel.h"

/* Where bits are written; up to seven are pending in ``bits``. There must be room for eight bytes more than are written. */
typedef struct {
    uint8_t *at;
    uint64_t bits;
    unsigned waiting;
} bits_t;

enum { AT_ONCE = 56 };

/* Writes at most AT_ONCE bits. */
static inline void bits_put(bits_t *out, uint64_t bits, unsigned size) {
    out->bits |= bits << out->waiting;
    out->waiting += size;
    memcpy(out->at, &out->bits, sizeof out->bits);
    unsigned whole = out->waiting >> 3;
    out->at += whole;
    out->bits >>= 8 * whole;
    out->waiting &= 7;
}

/* Writes the lowest ``size`` bytes of a number, the lowest first. */
static inline void number_put(uint8_t *at, uint64_t number, size_t size) {
    for (size_t index = 0; index < size; index++) at[index] = (uint8_t)(number >> 8 * index);
}

#endif

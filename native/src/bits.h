/* Bits written one after the other, the first one lowest. */

#ifndef STREAM_BITS_H
#define STREAM_BITS_H

#include "kernel.h"

/* Where bits go; up to seven wait in ``bits``. There must be room for eight bytes more than are written. */
typedef struct {
    uint8_t *at;
    uint64_t bits;
    unsigned waiting;
} bits_t;

enum { AT_ONCE = 56 };

/* AT_ONCE bits at most. */
static inline void bits_put(bits_t *out, uint64_t bits, unsigned size) {
    out->bits |= bits << out->waiting;
    out->waiting += size;
    memcpy(out->at, &out->bits, sizeof out->bits);
    unsigned whole = out->waiting >> 3;
    out->at += whole;
    out->bits >>= 8 * whole;
    out->waiting &= 7;
}

#endif

/* Values of a column as Parquet's delta encodings write them. */

#ifndef STREAM_DELTA_H
#define STREAM_DELTA_H

#include "kernel.h"

static inline uint8_t *varint(uint8_t *out, uint64_t value) {
    for (; value > 0x7F; value >>= 7) *out++ = (uint8_t)(value | 0x80);
    *out++ = (uint8_t)value;
    return out;
}

/* Integers of four or eight bytes appended to ``out``; differences wrap around within them. ``quick``: with AVX-512 if the
   processor has it. 0 where there is no memory. */
int delta_pack(blob_t *out, const void *values, size_t count, int wide, int quick);
/* Texts appended to ``out``: what each shares with the one before, how long its rest is, and the rest. 0 where there is no memory. */
int texts_pack(const views_t *texts, blob_t *out, int quick);

#endif

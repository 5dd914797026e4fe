/* Parquet's delta encodings of the values of a column. */

#ifndef STREAM_DELTA_H
#define STREAM_DELTA_H

#include "kernel.h"

static inline uint8_t *varint(uint8_t *out, uint64_t value) {
    for (; value > 0x7F; value >>= 7) *out++ = (uint8_t)(value | 0x80);
    *out++ = (uint8_t)value;
    return out;
}

/* Appends integers of four or eight bytes to ``out``; differences wrap around in that width. ``quick``: with AVX-512 if the
   processor has it. Returns 0 if memory ran out. */
int delta_pack(blob_t *out, const void *values, size_t count, int wide, int quick);
/* Appends texts to ``out``: the lengths of the prefixes shared with the previous text, the lengths of the suffixes, and the suffixes, which
   begin at ``suffixes_at`` in ``out``. Returns 0 if memory ran out. */
int texts_pack(const views_t *texts, blob_t *out, size_t *suffixes_at, int quick);

#endif

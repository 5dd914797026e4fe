/* Finite State Entropy as zstd uses it (RFC 8878, section 4.1), for symbols that are known beforehand. */

#ifndef STREAM_FSE_H
#define STREAM_FSE_H

#include "bits.h"

/* Enough states for all symbols of lengths in a sequence of zstd. */
enum { STATE_BITS = 6, STATES = 1 << STATE_BITS, SYMBOLS = 53 };

/* Symbols and the states that stand for them. */
typedef struct {
    uint8_t share[SYMBOLS];  /* how many states a symbol has */
    uint8_t first[SYMBOLS];  /* where they begin in ``states``, in ascending order */
    uint8_t states[STATES];
    unsigned bits;           /* of a state; 0 if there is a single symbol, for which zstd has the mode RLE */
    unsigned last;           /* the greatest symbol that is used */
} table_t;

/* A table for symbols of these counts, of which one at least is not 0. */
void table_for(const uint32_t *counts, table_t *table);
/* Writes the table's description and returns its size, which is less than TABLE_BYTES. */
enum { TABLE_BYTES = 64 };
size_t table_write(const table_t *table, uint8_t *out);

/* A state for the last symbol, which is written first: sequences are encoded from the last one to the first. */
static inline unsigned state_last(const table_t *table, unsigned symbol) { return table->bits ? table->states[table->first[symbol]] : 0; }

/* Writes the bits that lead a reader from a state for ``symbol`` to ``state``, and returns the former. */
static inline unsigned state_before(const table_t *table, bits_t *out, unsigned symbol, unsigned state) {
    if (!table->bits) return 0;
    unsigned value = state + STATES, share = table->share[symbol], size = 0;
    while (value >> size >= 2 * share) size++;
    bits_put(out, value & ((1U << size) - 1), size);
    return table->states[table->first[symbol] + (value >> size) - share];
}

#endif

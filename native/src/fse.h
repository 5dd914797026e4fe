/* Finite State Entropy as zstd uses it (RFC 8878, section 4.1), for symbols that are known in advance. */

#ifndef STREAM_FSE_H
#define STREAM_FSE_H

#include "bits.h"

/* Enough states for all literals length and match length codes of zstd. */
enum { STATE_BITS = 6, STATES = 1 << STATE_BITS, SYMBOLS = 53 };

/* The states of each symbol. */
typedef struct {
    uint8_t share[SYMBOLS]; /* a symbol's number of states (its normalized probability) */
    uint8_t first[SYMBOLS]; /* index of its first state in ``states``; a symbol's states ascend */
    uint8_t states[STATES];
    unsigned bits;          /* bits of a state (the accuracy log); 0 for a single symbol, for which zstd has the mode RLE */
    unsigned last;          /* the greatest symbol used */
} table_t;

/* Makes a table for symbols with these counts, of which at least one must not be 0. */
void table_for(const uint32_t *counts, table_t *table);
/* Writes the table's description and returns its size, which is less than TABLE_BYTES. */
enum { TABLE_BYTES = 64 };
size_t table_write(const table_t *table, uint8_t *out);

/* A state for the last symbol, which is encoded first: sequences are encoded in reverse order. */
static inline unsigned state_last(const table_t *table, unsigned symbol) { return table->bits ? table->states[table->first[symbol]] : 0; }

/* Writes the bits that lead a decoder from a state of ``symbol`` to ``state``, and returns the former. */
static inline unsigned state_before(const table_t *table, bits_t *out, unsigned symbol, unsigned state) {
    if (!table->bits) return 0;
    unsigned value = state + STATES, share = table->share[symbol], size = 0;
    while (value >> size >= 2 * share) size++;
    bits_put(out, value & ((1U << size) - 1), size);
    return table->states[table->first[symbol] + (value >> size) - share];
}

#endif

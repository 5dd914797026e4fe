/* FSE tables and their descriptions. */

#include "fse.h"

/* Each symbol's number of states: proportional to its count, but at least one. */
static void shares_for(const uint32_t *counts, table_t *table) {
    uint64_t all = 0;
    unsigned most = 0;
    int left = STATES;
    for (unsigned symbol = 0; symbol < SYMBOLS; symbol++) {
        all += counts[symbol];
        if (counts[symbol]) table->last = symbol;
        if (counts[symbol] > counts[most]) most = symbol;
    }
    for (unsigned symbol = 0; symbol < SYMBOLS; symbol++) {
        uint64_t share = counts[symbol] * (uint64_t)STATES / all;
        table->share[symbol] = (uint8_t)(counts[symbol] && !share ? 1 : share);
        left -= table->share[symbol];
    }
    for (; left < 0; left++) {
        for (unsigned symbol = 0; symbol < SYMBOLS; symbol++)
            if (table->share[symbol] > table->share[most]) most = symbol;
        table->share[most]--;
    }
    table->share[most] = (uint8_t)(table->share[most] + left);
}

void table_for(const uint32_t *counts, table_t *table) {
    enum { STEP = STATES / 2 + STATES / 8 + 3 };
    uint8_t symbols[STATES], next[SYMBOLS];
    unsigned state = 0, first = 0;
    memset(table, 0, sizeof *table);
    shares_for(counts, table);
    table->bits = table->share[table->last] == STATES ? 0 : STATE_BITS;
    for (unsigned symbol = 0; symbol < SYMBOLS; symbol++) {
        table->first[symbol] = next[symbol] = (uint8_t)first;
        first += table->share[symbol];
        for (unsigned index = 0; index < table->share[symbol]; index++, state = (state + STEP) % STATES) symbols[state] = (uint8_t)symbol;
    }
    for (unsigned state = 0; state < STATES; state++) table->states[next[symbols[state]]++] = (uint8_t)state;
}

/* Writes a number that the decoder knows to be at most ``greatest``. */
static void number_write(bits_t *out, unsigned value, unsigned greatest) {
    unsigned size = 1;
    while (greatest >> size) size++;
    unsigned short_values = (1U << size) - 1 - greatest; /* the values below this take one bit less */
    if (value < short_values)
        bits_put(out, value, size - 1);
    else
        bits_put(out, value < 1U << (size - 1) ? value : value + short_values, size);
}

size_t table_write(const table_t *table, uint8_t *out) {
    if (!table->bits) {
        *out = (uint8_t)table->last;
        return 1;
    }
    bits_t bits = {out, 0, 0};
    unsigned left = STATES, symbol = 0;
    bits_put(&bits, STATE_BITS - 5, 4);
    while (left) {
        unsigned share = table->share[symbol++];
        number_write(&bits, share + 1, left + 1);
        left -= share;
        if (share) continue;
        unsigned zeros = 0;
        while (!table->share[symbol + zeros]) zeros++;
        symbol += zeros;
        for (; zeros >= 3; zeros -= 3) bits_put(&bits, 3, 2);
        bits_put(&bits, zeros, 2);
    }
    return (size_t)(bits.at - out) + (bits.waiting > 0);
}

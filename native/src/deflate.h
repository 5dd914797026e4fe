/* Huffman codes and bits of DEFLATE (RFC 1951), for a compressor that knows its matches in advance. */

#ifndef STREAM_DEFLATE_H
#define STREAM_DEFLATE_H

#include "bits.h"

enum { LITERALS = 286, DISTANCES = 30, END_OF_BLOCK = 256, SHORTEST = 3, LONGEST = 258, FARTHEST = 32768 };

/* The longest code that is used, so that four literals fit into one call of ``bits_put``. */
enum { LONGEST_CODE = 12 };

/* How often each symbol is expected; ``literals`` includes lengths. */
typedef struct {
    uint32_t literals[LITERALS], distances[DISTANCES];
} counts_t;

/* A symbol's bits, the first one lowest, and their number. */
typedef struct {
    uint16_t bits, size;
} code_t;

typedef struct {
    code_t literals[LITERALS], distances[DISTANCES];
} codes_t;

static inline void bits_literals(bits_t *out, const codes_t *codes, const uint8_t *text, size_t size) {
    for (; size >= 4; size -= 4, text += 4) {
        code_t one = codes->literals[text[0]], two = codes->literals[text[1]], three = codes->literals[text[2]], four = codes->literals[text[3]];
        uint64_t first = one.bits | (uint64_t)two.bits << one.size, second = three.bits | (uint64_t)four.bits << three.size;
        bits_put(out, first | second << (one.size + two.size), (unsigned)one.size + two.size + three.size + four.size);
    }
    uint64_t bits = 0;
    unsigned waiting = 0;
    for (; size; size--, text++) {
        code_t code = codes->literals[*text];
        bits |= (uint64_t)code.bits << waiting;
        waiting += code.size;
    }
    bits_put(out, bits, waiting);
}

/* A match's bits, the first one lowest, and their number. */
typedef struct {
    uint64_t bits;
    unsigned size;
} match_t;

/* Counts ``times`` matches of ``length`` bytes, SHORTEST to LONGEST, at ``distance``, which is at most FARTHEST. */
void match_count(counts_t *counts, size_t length, size_t distance, uint32_t times);
/* Encodes such a match. */
match_t match_encode(const codes_t *codes, size_t length, size_t distance);

/* Codes for these counts; every literal and length gets a code, even if its count is 0. */
void codes_for(const counts_t *counts, codes_t *codes);
/* Writes the header of the only block, which describes the codes, in less than HEADER_BYTES. */
enum { HEADER_BYTES = 512 };
void header_write(bits_t *out, const codes_t *codes);

#endif

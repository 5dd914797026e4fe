/* Huffman codes and the header of a DEFLATE block. */

#include "deflate.h"

enum { LENGTH_CODES = 19, LONGEST_LENGTH_CODE = 7, MAX_SYMBOLS = LITERALS };

static const uint16_t LENGTH_BASE[] = {3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258};
static const uint8_t LENGTH_EXTRA[] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0};
static const uint16_t DISTANCE_BASE[] = {1,   2,   3,   4,   5,   7,    9,    13,   17,   25,   33,   49,   65,    97,    129,
                                         193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577};

/* The symbol of a length or distance, and the extra bits that follow it. */
typedef struct {
    unsigned symbol, extra, extra_size;
} symbol_t;

static symbol_t symbol_for(const uint16_t *base, unsigned count, size_t value) {
    unsigned symbol = count - 1;
    while (base[symbol] > value) symbol--;
    return (symbol_t){symbol, (unsigned)(value - base[symbol]), 0};
}

static symbol_t length_symbol(size_t length) {
    symbol_t found = symbol_for(LENGTH_BASE, sizeof LENGTH_BASE / sizeof *LENGTH_BASE, length);
    found.extra_size = LENGTH_EXTRA[found.symbol];
    found.symbol += END_OF_BLOCK + 1;
    return found;
}

static symbol_t distance_symbol(size_t distance) {
    symbol_t found = symbol_for(DISTANCE_BASE, DISTANCES, distance);
    found.extra_size = found.symbol < 2 ? 0 : found.symbol / 2 - 1;
    return found;
}

void match_count(counts_t *counts, size_t length, size_t distance, uint32_t times) {
    counts->literals[length_symbol(length).symbol] += times;
    counts->distances[distance_symbol(distance).symbol] += times;
}

match_t match_encode(const codes_t *codes, size_t length, size_t distance) {
    symbol_t length_part = length_symbol(length), distance_part = distance_symbol(distance);
    code_t length_code = codes->literals[length_part.symbol], distance_code = codes->distances[distance_part.symbol];
    match_t match = {length_code.bits, length_code.size};
    match.bits |= (uint64_t)length_part.extra << match.size;
    match.size += length_part.extra_size;
    match.bits |= (uint64_t)distance_code.bits << match.size;
    match.size += distance_code.size;
    match.bits |= (uint64_t)distance_part.extra << match.size;
    match.size += distance_part.extra_size;
    return match;
}

static int by_count(const void *one, const void *two) {
    uint64_t a = *(const uint64_t *)one, b = *(const uint64_t *)two;
    return (a > b) - (a < b);
}

/* Computes the depths of the leaves of a Huffman tree and returns the greatest; ``counts`` has at least two values, in ascending order. */
static int huffman_depths(const uint32_t *counts, int used, int *depths) {
    uint64_t weights[2 * MAX_SYMBOLS];
    int parents[2 * MAX_SYMBOLS], deepest = 0;
    for (int leaf = 0; leaf < used; leaf++) weights[leaf] = counts[leaf];
    /* Inner nodes are created in the order of their weights, so the two lightest nodes are at the front of the leaves or the inner nodes. */
    int leaf = 0, inner = used, root = 2 * used - 2;
    for (int node = used; node <= root; node++) {
        weights[node] = 0;
        for (int child = 0; child < 2; child++) {
            int lightest = leaf < used && (inner >= node || weights[leaf] <= weights[inner]) ? leaf++ : inner++;
            weights[node] += weights[lightest];
            parents[lightest] = node;
        }
    }
    depths[root] = 0;
    for (int node = root - 1; node >= 0; node--) depths[node] = depths[parents[node]] + 1;
    for (int index = 0; index < used; index++)
        if (depths[index] > deepest) deepest = depths[index];
    return deepest;
}

/* Sizes of codes of at most ``limit`` bits for the symbols that are counted, of which there must be two or more. Until the tree is flat
   enough, all counts are halved, which keeps their order but makes them more equal. */
static void code_sizes(const uint32_t *counts, int symbols, int limit, uint8_t *sizes) {
    uint64_t leaves[MAX_SYMBOLS];
    uint32_t flattened[MAX_SYMBOLS];
    int depths[2 * MAX_SYMBOLS], used = 0;
    for (int symbol = 0; symbol < symbols; symbol++)
        if (counts[symbol]) leaves[used++] = (uint64_t)counts[symbol] << 16 | (uint64_t)symbol;
    qsort(leaves, (size_t)used, sizeof *leaves, by_count);
    for (int leaf = 0; leaf < used; leaf++) flattened[leaf] = (uint32_t)(leaves[leaf] >> 16);
    while (huffman_depths(flattened, used, depths) > limit)
        for (int leaf = 0; leaf < used; leaf++) flattened[leaf] = flattened[leaf] / 2 + flattened[leaf] % 2;
    memset(sizes, 0, (size_t)symbols);
    for (int leaf = 0; leaf < used; leaf++) sizes[leaves[leaf] & 0xFFFF] = (uint8_t)depths[leaf];
}

static void code_bits(const uint8_t *sizes, int symbols, code_t *codes) {
    unsigned next[16] = {0}, size_counts[16] = {0}, code = 0;
    for (int symbol = 0; symbol < symbols; symbol++) size_counts[sizes[symbol]]++;
    size_counts[0] = 0;
    for (int size = 1; size < 16; size++) next[size] = code = (code + size_counts[size - 1]) << 1;
    for (int symbol = 0; symbol < symbols; symbol++) {
        unsigned value = sizes[symbol] ? next[sizes[symbol]]++ : 0, reversed = 0;
        for (int bit = 0; bit < sizes[symbol]; bit++) reversed |= (value >> bit & 1) << (sizes[symbol] - 1 - bit);
        codes[symbol] = (code_t){(uint16_t)reversed, sizes[symbol]};
    }
}

void codes_for(const counts_t *counts, codes_t *codes) {
    counts_t all = *counts;
    uint8_t sizes[MAX_SYMBOLS];
    for (int symbol = 0; symbol < LITERALS; symbol++) all.literals[symbol] += !all.literals[symbol];
    /* Some decoders demand a complete code even if only one distance is used. */
    int used_distances = 0;
    for (int symbol = 0; symbol < DISTANCES; symbol++) used_distances += all.distances[symbol] != 0;
    for (int symbol = 0; used_distances < 2; symbol++)
        if (!all.distances[symbol]) all.distances[symbol] = 1, used_distances++;
    code_sizes(all.literals, LITERALS, LONGEST_CODE, sizes);
    code_bits(sizes, LITERALS, codes->literals);
    code_sizes(all.distances, DISTANCES, LONGEST_CODE, sizes);
    code_bits(sizes, DISTANCES, codes->distances);
}

void header_write(bits_t *out, const codes_t *codes) {
    static const uint8_t ORDER[LENGTH_CODES] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};
    uint8_t sizes[LITERALS + DISTANCES], code_length_sizes[LENGTH_CODES];
    uint32_t counts[LENGTH_CODES] = {0};
    code_t length_codes[LENGTH_CODES];
    for (int symbol = 0; symbol < LITERALS; symbol++) sizes[symbol] = (uint8_t)codes->literals[symbol].size;
    for (int symbol = 0; symbol < DISTANCES; symbol++) sizes[LITERALS + symbol] = (uint8_t)codes->distances[symbol].size;
    for (int index = 0; index < LITERALS + DISTANCES; index++) counts[sizes[index]]++;
    counts[0]++, counts[LONGEST_CODE]++; /* at least two symbols are needed */
    code_sizes(counts, LENGTH_CODES, LONGEST_LENGTH_CODE, code_length_sizes);
    code_bits(code_length_sizes, LENGTH_CODES, length_codes);
    bits_put(out, 1 | 2 << 1, 3); /* last block, dynamic Huffman codes */
    bits_put(out, LITERALS - 257, 5);
    bits_put(out, DISTANCES - 1, 5);
    bits_put(out, LENGTH_CODES - 4, 4);
    for (int index = 0; index < LENGTH_CODES; index++) bits_put(out, code_length_sizes[ORDER[index]], 3);
    for (int index = 0; index < LITERALS + DISTANCES; index++) bits_put(out, length_codes[sizes[index]].bits, length_codes[sizes[index]].size);
}

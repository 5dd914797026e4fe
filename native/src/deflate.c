/* Huffman codes and the head of a block of DEFLATE. */

#include "deflate.h"

enum { LENGTH_CODES = 19, LONGEST_LENGTH_CODE = 7, MOST = LITERALS };

static const uint16_t LENGTH_BASE[] = {3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258};
static const uint8_t LENGTH_EXTRA[] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0};
static const uint16_t DISTANCE_BASE[] = {1,   2,   3,   4,   5,   7,    9,    13,   17,   25,   33,   49,   65,    97,    129,
                                         193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577};

/* The symbol of a length or distance, and the extra bits that follow it. */
typedef struct {
    unsigned symbol, extra, extra_size;
} part_t;

static part_t part(const uint16_t *base, unsigned count, size_t value) {
    unsigned symbol = count - 1;
    while (base[symbol] > value) symbol--;
    return (part_t){symbol, (unsigned)(value - base[symbol]), 0};
}

static part_t length_part(size_t length) {
    part_t found = part(LENGTH_BASE, sizeof LENGTH_BASE / sizeof *LENGTH_BASE, length);
    found.extra_size = LENGTH_EXTRA[found.symbol];
    found.symbol += END_OF_BLOCK + 1;
    return found;
}

static part_t distance_part(size_t distance) {
    part_t found = part(DISTANCE_BASE, DISTANCES, distance);
    found.extra_size = found.symbol < 2 ? 0 : found.symbol / 2 - 1;
    return found;
}

void match_count(counts_t *counts, size_t length, size_t distance, uint32_t times) {
    counts->literals[length_part(length).symbol] += times;
    counts->distances[distance_part(distance).symbol] += times;
}

match_t match_coded(const codes_t *codes, size_t length, size_t distance) {
    part_t near = length_part(length), far = distance_part(distance);
    code_t first = codes->literals[near.symbol], second = codes->distances[far.symbol];
    match_t match = {first.bits, first.size};
    match.bits |= (uint64_t)near.extra << match.size;
    match.size += near.extra_size;
    match.bits |= (uint64_t)second.bits << match.size;
    match.size += second.size;
    match.bits |= (uint64_t)far.extra << match.size;
    match.size += far.extra_size;
    return match;
}

static int by_count(const void *one, const void *two) {
    uint64_t a = *(const uint64_t *)one, b = *(const uint64_t *)two;
    return (a > b) - (a < b);
}

/* Depths of the leaves of a Huffman tree, whose counts ascend and which are at least two; the greatest depth. */
static int tree(const uint32_t *counts, int used, int *depths) {
    uint64_t weights[2 * MOST];
    int parents[2 * MOST], deepest = 0;
    for (int leaf = 0; leaf < used; leaf++) weights[leaf] = counts[leaf];
    /* Inner nodes come about in the order of their weights, so the two lightest are at the front of the leaves or of the inner nodes. */
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
    for (int place = 0; place < used; place++)
        if (depths[place] > deepest) deepest = depths[place];
    return deepest;
}

/* Sizes of codes of at most ``limit`` bits for the symbols that are counted, two at least: counts are made more alike, which leaves their
   order as it is, until the tree is flat enough. */
static void code_sizes(const uint32_t *counts, int symbols, int limit, uint8_t *sizes) {
    uint64_t leaves[MOST];
    uint32_t likened[MOST];
    int depths[2 * MOST], used = 0;
    for (int symbol = 0; symbol < symbols; symbol++)
        if (counts[symbol]) leaves[used++] = (uint64_t)counts[symbol] << 16 | (uint64_t)symbol;
    qsort(leaves, (size_t)used, sizeof *leaves, by_count);
    for (int leaf = 0; leaf < used; leaf++) likened[leaf] = (uint32_t)(leaves[leaf] >> 16);
    while (tree(likened, used, depths) > limit)
        for (int leaf = 0; leaf < used; leaf++) likened[leaf] = likened[leaf] / 2 + likened[leaf] % 2;
    memset(sizes, 0, (size_t)symbols);
    for (int leaf = 0; leaf < used; leaf++) sizes[leaves[leaf] & 0xFFFF] = (uint8_t)depths[leaf];
}

static void code_bits(const uint8_t *sizes, int symbols, code_t *codes) {
    unsigned next[16] = {0}, having[16] = {0}, code = 0;
    for (int symbol = 0; symbol < symbols; symbol++) having[sizes[symbol]]++;
    having[0] = 0;
    for (int size = 1; size < 16; size++) next[size] = code = (code + having[size - 1]) << 1;
    for (int symbol = 0; symbol < symbols; symbol++) {
        unsigned value = sizes[symbol] ? next[sizes[symbol]]++ : 0, turned = 0;
        for (int bit = 0; bit < sizes[symbol]; bit++) turned |= (value >> bit & 1) << (sizes[symbol] - 1 - bit);
        codes[symbol] = (code_t){(uint16_t)turned, sizes[symbol]};
    }
}

void codes_for(const counts_t *counts, codes_t *codes) {
    counts_t all = *counts;
    uint8_t sizes[MOST];
    for (int symbol = 0; symbol < LITERALS; symbol++) all.literals[symbol] += !all.literals[symbol];
    /* Some readers want a complete code also where a single distance is in use. */
    int others = 0;
    for (int symbol = 0; symbol < DISTANCES; symbol++) others += all.distances[symbol] != 0;
    for (int symbol = 0; others < 2; symbol++)
        if (!all.distances[symbol]) all.distances[symbol] = 1, others++;
    code_sizes(all.literals, LITERALS, LONGEST_CODE, sizes);
    code_bits(sizes, LITERALS, codes->literals);
    code_sizes(all.distances, DISTANCES, LONGEST_CODE, sizes);
    code_bits(sizes, DISTANCES, codes->distances);
}

void bits_head(bits_t *out, const codes_t *codes) {
    static const uint8_t ORDER[LENGTH_CODES] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};
    uint8_t sizes[LITERALS + DISTANCES], own[LENGTH_CODES];
    uint32_t counts[LENGTH_CODES] = {0};
    code_t lengths[LENGTH_CODES];
    for (int symbol = 0; symbol < LITERALS; symbol++) sizes[symbol] = (uint8_t)codes->literals[symbol].size;
    for (int symbol = 0; symbol < DISTANCES; symbol++) sizes[LITERALS + symbol] = (uint8_t)codes->distances[symbol].size;
    for (int place = 0; place < LITERALS + DISTANCES; place++) counts[sizes[place]]++;
    counts[0]++, counts[LONGEST_CODE]++; /* two at least */
    code_sizes(counts, LENGTH_CODES, LONGEST_LENGTH_CODE, own);
    code_bits(own, LENGTH_CODES, lengths);
    bits_put(out, 1 | 2 << 1, 3); /* the last block; with codes of its own */
    bits_put(out, LITERALS - 257, 5);
    bits_put(out, DISTANCES - 1, 5);
    bits_put(out, LENGTH_CODES - 4, 4);
    for (int place = 0; place < LENGTH_CODES; place++) bits_put(out, own[ORDER[place]], 3);
    for (int place = 0; place < LITERALS + DISTANCES; place++) bits_put(out, lengths[sizes[place]].bits, lengths[sizes[place]].size);
}

/* Compresses decimal digits as blocks of a zstd frame (RFC 8878) with one fixed Huffman code. The digits of sequence numbers are equally
   frequent and nothing in them repeats, so counting them and searching for matches takes time and gains nothing. stream/audit/digits.py
   produces the same bytes. */

#include "bits.h"

/* Fewer digits may take a block that is larger than they are, which is not allowed in a frame without other content. */
enum { LEAST = 256 };
enum { BLOCK = 1 << 17, BLOCK_HEADER = 3, LITERALS_HEADER = 5, STREAMS = 4, JUMPS = 2 * (STREAMS - 1), TREE = 30, SHORT_FROM = 4, LONG = 4 };
enum { COMPRESSED = 2, TREELESS = 3, LARGE = 3 };

/* The code of a digit, and how many bits it has. */
static inline unsigned code_of(unsigned digit) { return digit < SHORT_FROM ? digit : digit - SHORT_FROM / 2; }
static inline unsigned code_size(unsigned digit) { return digit < SHORT_FROM ? LONG : LONG - 1; }

static int all_digits(const uint8_t *digits, size_t size) {
    unsigned other = 0;
    for (size_t index = 0; index < size; index++) other |= (unsigned)((uint8_t)(digits[index] - '0') > 9);
    return !other;
}

/* Streams are read backwards, so the last digit is written first. */
static uint8_t *stream_put(uint8_t *at, const uint8_t *digits, size_t size) {
    bits_t out = {at, 0, 0};
    while (size--) bits_put(&out, code_of(digits[size] - '0'), code_size(digits[size] - '0'));
    bits_put(&out, 1, 1);
    return out.at + (out.waiting > 0);
}

typedef uint8_t *(*stream_put_t)(uint8_t *at, const uint8_t *digits, size_t size);

#if defined(__x86_64__)
#include <immintrin.h>

/* The same with eight digits at a time, one in each byte of a word; the first must be in the highest. */
__attribute__((target("bmi2,popcnt"))) static uint8_t *stream_put_quick(uint8_t *at, const uint8_t *digits, size_t size) {
    const uint64_t ones = 0x0101010101010101U;
    bits_t out = {at, 0, 0};
    for (; size >= 8; size -= 8) {
        uint64_t eight;
        memcpy(&eight, digits + size - 8, 8);
        eight = __builtin_bswap64(eight) & 15 * ones;
        uint64_t are_short = (eight + (128 - SHORT_FROM) * ones) >> 7 & ones;
        uint64_t kept = 15 * ones ^ are_short << 3;
        bits_put(&out, _pext_u64(eight - 2 * are_short, kept), 32 - (unsigned)_mm_popcnt_u64(are_short));
    }
    while (size--) bits_put(&out, code_of(digits[size] - '0'), code_size(digits[size] - '0'));
    bits_put(&out, 1, 1);
    return out.at + (out.waiting > 0);
}

static stream_put_t stream_put_best(void) {
    return __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("popcnt") ? stream_put_quick : stream_put;
}
#else
static stream_put_t stream_put_best(void) { return stream_put; }
#endif

/* The code's description: for each byte below '9', the weight in four bits, 1 for a code of four bits and 2 for one of three. */
static void tree_put(uint8_t *at) {
    memset(at, 0, TREE);
    *at = 127 + '9';
    for (unsigned digit = 0; digit < 9; digit++) {
        unsigned byte = '0' + digit, weight = LONG + 1 - code_size(digit);
        at[1 + byte / 2] |= (uint8_t)(byte % 2 ? weight : weight << 4);
    }
}

/* Writes one block; only the first describes the code. */
static uint8_t *block_put(uint8_t *at, stream_put_t put, const uint8_t *digits, size_t size, int is_first, int is_last) {
    uint8_t *literals = at + BLOCK_HEADER, *coded = literals + LITERALS_HEADER;
    size_t tree = is_first ? TREE : 0, each = (size + STREAMS - 1) / STREAMS;
    if (is_first) tree_put(coded);
    uint8_t *jumps = coded + tree, *end = jumps + JUMPS;
    for (size_t stream = 0; stream < STREAMS; stream++) {
        uint8_t *begin = end;
        end = put(begin, digits + stream * each, stream + 1 < STREAMS ? each : size - stream * each);
        if (stream + 1 < STREAMS) number_put(jumps + 2 * stream, (uint64_t)(end - begin), 2);
    }
    number_put(literals, (uint64_t)(is_first ? COMPRESSED : TREELESS) | LARGE << 2 | (uint64_t)size << 4 | (uint64_t)(end - coded) << 22, LITERALS_HEADER);
    *end++ = 0; /* the number of sequences */
    number_put(at, (uint64_t)(end - literals) << 3 | COMPRESSED << 1 | (uint64_t)is_last, BLOCK_HEADER);
    return end;
}

PyObject *kernel_digits(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *object;
    Py_buffer text;
    int quick;
    if (!PyArg_ParseTuple(args, "Op", &object, &quick) || PyObject_GetBuffer(object, &text, PyBUF_SIMPLE)) return NULL;
    size_t size = (size_t)text.len, blocks = (size + BLOCK - 1) / BLOCK;
    blob_t out = {0};
    int made, fits = 0;
    Py_BEGIN_ALLOW_THREADS
    made = blob_reserve(&out, size / 2 + blocks * 64 + TREE + 16);
    fits = size >= LEAST && all_digits(text.buf, size);
    if (made && fits) {
        const stream_put_t put = quick ? stream_put_best() : stream_put;
        uint8_t *at = out.data;
        const uint8_t *digits = text.buf;
        for (size_t block = 0, done = 0; block < blocks; block++) {
            size_t until = size * (block + 1) / blocks;
            at = block_put(at, put, digits + done, until - done, !block, block + 1 == blocks);
            done = until;
        }
        out.size = (size_t)(at - out.data);
    }
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&text);
    if (!made) PyErr_NoMemory();
    PyObject *result = !made ? NULL : fits ? blob_take(&out) : Py_NewRef(Py_None);
    blob_free(&out);
    return result;
}

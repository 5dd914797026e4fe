/* HMAC-SHA256 (RFC 2104, FIPS 180-4) of all values of a column under one key. */

#include "kernel.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#endif

enum { BLOCK = 64, DIGEST = 32, WORDS = 8, LENGTH_AT = 8 };

typedef struct {
    uint32_t words[WORDS];
} state_t;

typedef void (*compress_t)(state_t *state, const uint8_t *blocks, size_t count);

static const state_t START = {{0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19}};

static const uint32_t ROUNDS[64] __attribute__((aligned(16))) = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be,
    0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa,
    0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85,
    0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3,
    0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f,
    0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static inline uint32_t word_read(const uint8_t *at) { return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3]; }

static inline void word_write(uint8_t *at, uint32_t word) {
    for (int place = 0; place < 4; place++) at[place] = (uint8_t)(word >> (24 - 8 * place));
}

static inline uint32_t turned(uint32_t word, int by) { return word >> by | word << (32 - by); }

static void compress_plain(state_t *state, const uint8_t *block, size_t count) {
    for (; count; count--, block += BLOCK) {
        uint32_t message[64], a = state->words[0], b = state->words[1], c = state->words[2], d = state->words[3];
        uint32_t e = state->words[4], f = state->words[5], g = state->words[6], h = state->words[7];
        for (int round = 0; round < 16; round++) message[round] = word_read(block + 4 * round);
        for (int round = 16; round < 64; round++) {
            uint32_t far = message[round - 15], near = message[round - 2];
            message[round] = message[round - 16] + (turned(far, 7) ^ turned(far, 18) ^ far >> 3) + message[round - 7] +
                             (turned(near, 17) ^ turned(near, 19) ^ near >> 10);
        }
        for (int round = 0; round < 64; round++) {
            uint32_t first = h + (turned(e, 6) ^ turned(e, 11) ^ turned(e, 25)) + ((e & f) ^ (~e & g)) + ROUNDS[round] + message[round];
            uint32_t second = (turned(a, 2) ^ turned(a, 13) ^ turned(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
            h = g, g = f, f = e, e = d + first, d = c, c = b, b = a, a = first + second;
        }
        const uint32_t more[WORDS] = {a, b, c, d, e, f, g, h};
        for (int word = 0; word < WORDS; word++) state->words[word] += more[word];
    }
}

#if defined(__x86_64__)
/* With the processor's SHA instructions, which keep the state in two vectors: a b e f and c d g h, each from the highest word down. */
__attribute__((target("sha,sse4.1,ssse3"))) static void compress_sha(state_t *state, const uint8_t *block, size_t count) {
    const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0bLL, 0x0405060700010203LL);
    __m128i low = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)state->words), 0xB1);
    __m128i high = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)(state->words + 4)), 0x1B);
    __m128i abef = _mm_alignr_epi8(low, high, 8), cdgh = _mm_blend_epi16(high, low, 0xF0);
    for (; count; count--, block += BLOCK) {
        __m128i message[4], abef_before = abef, cdgh_before = cdgh;
        for (int part = 0; part < 4; part++) message[part] = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)block + part), swap);
#pragma GCC unroll 16
        for (int four = 0; four < 16; four++) {
            __m128i now = message[four & 3], before = message[(four + 3) & 3];
            __m128i input = _mm_add_epi32(now, _mm_load_si128((const __m128i *)ROUNDS + four));
            cdgh = _mm_sha256rnds2_epu32(cdgh, abef, input);
            abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(input, 0x0E));
            if (four < 12) {
                __m128i sum = _mm_sha256msg1_epu32(now, message[(four + 1) & 3]);
                sum = _mm_add_epi32(sum, _mm_alignr_epi8(before, message[(four + 2) & 3], 4));
                message[four & 3] = _mm_sha256msg2_epu32(sum, before);
            }
        }
        abef = _mm_add_epi32(abef, abef_before);
        cdgh = _mm_add_epi32(cdgh, cdgh_before);
    }
    low = _mm_shuffle_epi32(abef, 0x1B);
    high = _mm_shuffle_epi32(cdgh, 0xB1);
    _mm_storeu_si128((__m128i *)state->words, _mm_blend_epi16(low, high, 0xF0));
    _mm_storeu_si128((__m128i *)(state->words + 4), _mm_alignr_epi8(high, low, 8));
}

static int has_sha(void) {
    unsigned a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & 1u << 9) || !(c & 1u << 19)) return 0;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && b & 1u << 29;
}
#endif

/* Finishes a hash that has already taken one block. */
static void finish(compress_t compress, const state_t *begun, const uint8_t *text, size_t size, uint8_t *digest) {
    state_t state = *begun;
    uint8_t last[2 * BLOCK] = {0};
    size_t left = size % BLOCK, padded = left < BLOCK - LENGTH_AT ? BLOCK : 2 * BLOCK;
    uint64_t bits = ((uint64_t)size + BLOCK) * 8;
    compress(&state, text, size / BLOCK);
    memcpy(last, text + size - left, left);
    last[left] = 0x80;
    word_write(last + padded - LENGTH_AT, (uint32_t)(bits >> 32));
    word_write(last + padded - LENGTH_AT / 2, (uint32_t)bits);
    compress(&state, last, padded / BLOCK);
    for (int word = 0; word < WORDS; word++) word_write(digest + 4 * word, state.words[word]);
}

static int hash_all(const views_t *texts, const uint8_t *key, int quick, size_t length, blob_t *views, blob_t *data) {
    static const char hex[] = "0123456789abcdef";
    compress_t compress = compress_plain;
    state_t inner = START, outer = START;
    uint8_t padded[2][BLOCK], digits[2 * DIGEST], digest[DIGEST];
    size_t rows = (size_t)texts->rows;
#if defined(__x86_64__)
    if (quick && has_sha()) compress = compress_sha;
#else
    (void)quick;
#endif
    for (int at = 0; at < BLOCK; at++) padded[0][at] = key[at] ^ 0x36, padded[1][at] = key[at] ^ 0x5C;
    compress(&inner, padded[0], 1);
    compress(&outer, padded[1], 1);
    if (!blob_resize(views, rows * sizeof(view_t)) || !blob_reserve(data, length > INLINE ? rows * length : 0)) return 0;
    for (size_t row = 0; row < rows; row++) {
        size_t size;
        const uint8_t *limit, *text = views_at(texts, (Py_ssize_t)row, &size, &limit);
        finish(compress, &inner, text, size, digest);
        finish(compress, &outer, digest, DIGEST, digest);
        for (size_t at = 0; at < (length + 1) / 2; at++) digits[2 * at] = (uint8_t)hex[digest[at] >> 4], digits[2 * at + 1] = (uint8_t)hex[digest[at] & 15];
        view_set((view_t *)views->data + row, digits, length, 0, data->size);
        if (length <= INLINE) continue;
        memcpy(data->data + data->size, digits, length);
        data->size += length;
    }
    return 1;
}

PyObject *kernel_keyed_hash(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *views, *buffers, *result = NULL;
    Py_buffer key;
    Py_ssize_t length;
    int quick, made = 0;
    views_t texts;
    blob_t out = {0}, data = {0};
    if (!PyArg_ParseTuple(args, "OOy*np", &views, &buffers, &key, &length, &quick)) return NULL;
    if (key.len != BLOCK || length < 1 || length > 2 * DIGEST) {
        PyErr_SetString(PyExc_ValueError, "the key must be a block of 64 bytes, and the digest must have 1 to 64 digits");
    } else if (views_open(&texts, views, buffers)) {
        if (texts.rows > INT32_MAX / length) {
            result = Py_NewRef(Py_None);
        } else {
            Py_BEGIN_ALLOW_THREADS
            made = hash_all(&texts, key.buf, quick, (size_t)length, &out, &data);
            Py_END_ALLOW_THREADS
            result = made ? taken_pair(&out, &data) : PyErr_NoMemory();
        }
        views_close(&texts);
    }
    blob_free(&out);
    blob_free(&data);
    PyBuffer_Release(&key);
    return result;
}

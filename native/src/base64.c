/* Base64 of the ordinary alphabet, canonical only: padded, without blanks, unused bits zero. */

#include "kernel.h"

#if defined(__x86_64__)
#include <immintrin.h>

/* Decodes whole blocks of 32 characters while all are in the alphabet; returns the number of characters read. After Wojciech Mula and
   Daniel Lemire, "Faster Base64 Encoding and Decoding using AVX2 Instructions" (2018): a character is classified by its two nibbles. */
__attribute__((target("avx2"))) static size_t blocks(const uint8_t *text, size_t size, uint8_t *out) {
    const __m256i low_classes = _mm256_setr_epi8(0x15, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x13, 0x1A, 0x1B, 0x1B, 0x1B, 0x1A,
                                                 0x15, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x11, 0x13, 0x1A, 0x1B, 0x1B, 0x1B, 0x1A);
    const __m256i high_classes = _mm256_setr_epi8(0x10, 0x10, 0x01, 0x02, 0x04, 0x08, 0x04, 0x08, 0x10, 0x10, 0x10, 0x10, 0x10, 0x10, 0x10, 0x10,
                                                  0x10, 0x10, 0x01, 0x02, 0x04, 0x08, 0x04, 0x08, 0x10, 0x10, 0x10, 0x10, 0x10, 0x10, 0x10, 0x10);
    const __m256i shifts = _mm256_setr_epi8(0, 16, 19, 4, -65, -65, -71, -71, 0, 0, 0, 0, 0, 0, 0, 0,
                                            0, 16, 19, 4, -65, -65, -71, -71, 0, 0, 0, 0, 0, 0, 0, 0);
    const __m256i order = _mm256_setr_epi8(2, 1, 0, 6, 5, 4, 10, 9, 8, 14, 13, 12, -1, -1, -1, -1,
                                           2, 1, 0, 6, 5, 4, 10, 9, 8, 14, 13, 12, -1, -1, -1, -1);
    const __m256i slash = _mm256_set1_epi8(0x2F);
    size_t at = 0;
    /* The last block is left to the other loop, which handles padding. */
    for (; size - at >= 36; at += 32, out += 24) {
        __m256i piece = _mm256_loadu_si256((const __m256i *)(text + at));
        __m256i high = _mm256_and_si256(_mm256_srli_epi32(piece, 4), slash), low = _mm256_and_si256(piece, slash);
        if (!_mm256_testz_si256(_mm256_shuffle_epi8(low_classes, low), _mm256_shuffle_epi8(high_classes, high))) break;
        piece = _mm256_add_epi8(piece, _mm256_shuffle_epi8(shifts, _mm256_add_epi8(_mm256_cmpeq_epi8(piece, slash), high)));
        piece = _mm256_madd_epi16(_mm256_maddubs_epi16(piece, _mm256_set1_epi32(0x01400140)), _mm256_set1_epi32(0x00011000));
        piece = _mm256_shuffle_epi8(piece, order);
        piece = _mm256_permutevar8x32_epi32(piece, _mm256_setr_epi32(0, 1, 2, 4, 5, 6, -1, -1));
        _mm256_storeu_si256((__m256i *)out, piece);
    }
    return at;
}
#endif

enum { WRONG = 64 };
#define ROW8 WRONG, WRONG, WRONG, WRONG, WRONG, WRONG, WRONG, WRONG
static const uint8_t VALUES[256] = {
    ROW8, ROW8, ROW8, ROW8, ROW8, WRONG, WRONG, WRONG, 62, WRONG, WRONG, WRONG, 63,
    52, 53, 54, 55, 56, 57, 58, 59, 60, 61, WRONG, WRONG, WRONG, WRONG, WRONG, WRONG,
    WRONG, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, WRONG, WRONG, WRONG, WRONG, WRONG,
    WRONG, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, WRONG, WRONG, WRONG, WRONG, WRONG,
    ROW8, ROW8, ROW8, ROW8, ROW8, ROW8, ROW8, ROW8, ROW8, ROW8, ROW8, ROW8, ROW8, ROW8, ROW8, ROW8,
};

Py_ssize_t base64_decode(const uint8_t *text, size_t size, uint8_t *out) {
    uint8_t *to = out;
    size_t at = 0;
    if (size % 4) return -1;
    if (size == 0) return 0;
#if defined(__x86_64__)
    static int quick = -1;
    if (quick < 0) quick = __builtin_cpu_supports("avx2") != 0;
    if (quick) {
        at = blocks(text, size, to);
        to += at / 4 * 3;
    }
#endif
    for (; size - at > 4; at += 4, to += 3) {
        uint32_t a = VALUES[text[at]], b = VALUES[text[at + 1]], c = VALUES[text[at + 2]], d = VALUES[text[at + 3]];
        if ((a | b | c | d) & WRONG) return -1;
        uint32_t bits = a << 18 | b << 12 | c << 6 | d;
        to[0] = (uint8_t)(bits >> 16);
        to[1] = (uint8_t)(bits >> 8);
        to[2] = (uint8_t)bits;
    }
    int padding = (text[at + 3] == '=') + (text[at + 3] == '=' && text[at + 2] == '=');
    uint32_t a = VALUES[text[at]], b = VALUES[text[at + 1]];
    uint32_t c = padding > 1 ? 0 : VALUES[text[at + 2]], d = padding ? 0 : VALUES[text[at + 3]];
    if ((a | b | c | d) & WRONG || (padding == 1 && c & 3) || (padding == 2 && b & 15)) return -1;
    uint32_t bits = a << 18 | b << 12 | c << 6 | d;
    to[0] = (uint8_t)(bits >> 16);
    if (padding < 2) to[1] = (uint8_t)(bits >> 8);
    if (padding < 1) to[2] = (uint8_t)bits;
    return to - out + 3 - padding;
}

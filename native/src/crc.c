/* The CRC-32 of gzip. */

#include "deflate.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

uint32_t crc_table[8][256];
static int carryless;

void crc_prepare(void) {
    if (crc_table[0][1]) return;
#if defined(__x86_64__)
    carryless = __builtin_cpu_supports("pclmul") != 0;
#endif
    for (uint32_t value = 0; value < 256; value++) {
        uint32_t sum = value;
        for (int bit = 0; bit < 8; bit++) sum = sum >> 1 ^ (0xEDB88320U & (0U - (sum & 1)));
        crc_table[0][value] = sum;
    }
    for (int table = 1; table < 8; table++)
        for (uint32_t value = 0; value < 256; value++)
            crc_table[table][value] = crc_table[0][crc_table[table - 1][value] & 255] ^ crc_table[table - 1][value] >> 8;
}

static uint32_t crc_plain(uint32_t sum, const uint8_t *text, size_t size) {
    for (; size >= 8; size -= 8, text += 8) {
        uint32_t low, high;
        memcpy(&low, text, 4);
        memcpy(&high, text + 4, 4);
        low ^= sum;
        sum = crc_table[7][low & 255] ^ crc_table[6][low >> 8 & 255] ^ crc_table[5][low >> 16 & 255] ^ crc_table[4][low >> 24] ^
              crc_table[3][high & 255] ^ crc_table[2][high >> 8 & 255] ^ crc_table[1][high >> 16 & 255] ^ crc_table[0][high >> 24];
    }
    for (; size; size--, text++) sum = crc_table[0][(sum ^ *text) & 255] ^ sum >> 8;
    return sum;
}

#if defined(__x86_64__)
enum { LANES = 4, LANE = 16 };

/* ``ahead`` with ``lane`` brought up to it, whose distance ``powers`` stand for. */
__attribute__((target("pclmul"))) static inline __m128i folded(__m128i lane, __m128i ahead, __m128i powers) {
    __m128i low = _mm_clmulepi64_si128(lane, powers, 0x00), high = _mm_clmulepi64_si128(lane, powers, 0x11);
    return _mm_xor_si128(_mm_xor_si128(low, high), ahead);
}

/* Texts are polynomials, of which 16 bytes at a time are replaced by what leaves the same remainder further on; the powers of x for that are
   those of Gopal et al., Fast CRC Computation for Generic Polynomials Using PCLMULQDQ (2009). What is left has the sum of the whole. */
__attribute__((target("pclmul"))) static uint32_t crc_folded(uint32_t sum, const uint8_t *text, size_t size) {
    const __m128i by_lanes = _mm_set_epi64x(0x1C6E41596, 0x154442BD4), by_one = _mm_set_epi64x(0x0CCAA009E, 0x1751997D0);
    __m128i lanes[LANES];
    uint8_t rest[LANE];
    for (int at = 0; at < LANES; at++) lanes[at] = _mm_loadu_si128((const __m128i *)text + at);
    lanes[0] = _mm_xor_si128(lanes[0], _mm_cvtsi32_si128((int)sum));
    for (text += LANES * LANE, size -= LANES * LANE; size >= LANES * LANE; text += LANES * LANE, size -= LANES * LANE)
        for (int at = 0; at < LANES; at++) lanes[at] = folded(lanes[at], _mm_loadu_si128((const __m128i *)text + at), by_lanes);
    for (int at = 1; at < LANES; at++) lanes[at] = folded(lanes[at - 1], lanes[at], by_one);
    for (; size >= LANE; text += LANE, size -= LANE) lanes[3] = folded(lanes[3], _mm_loadu_si128((const __m128i *)text), by_one);
    _mm_storeu_si128((__m128i *)rest, lanes[3]);
    return crc_plain(crc_plain(0, rest, LANE), text, size);
}
#endif

uint32_t crc(uint32_t sum, const uint8_t *text, size_t size) {
#if defined(__x86_64__)
    if (carryless && size >= LANES * LANE) return crc_folded(sum, text, size);
#endif
    return crc_plain(sum, text, size);
}

/* CRC-32 as in gzip (RFC 1952): over bytes, and over messages of equal size that differ in a few words.

   The sum is the remainder of a text, read as a polynomial, divided by another polynomial. It is linear: a word adds its own polynomial
   times a power of x given by the number of bytes that follow. So the sum of a message follows from that of another message and the words
   in which they differ, each multiplied by its factor without carries. Products are added in 128 bits without dividing, which represents a
   text of 16 bytes with the same sum, and are divided once, when the sum is needed. */

#ifndef STREAM_CHECKSUM_H
#define STREAM_CHECKSUM_H

#include "kernel.h"

/* Continues ``sum`` over ``size`` bytes; a gzip member begins and ends with all bits inverted. */
uint32_t checksum(uint32_t sum, const uint8_t *text, size_t size);
/* Fills the tables; must be called first, with the GIL held. */
void checksum_prepare(void);
/* ``factors[n]``: the factor of a word of eight bytes whose first byte is the n-th from the end, for n up to ``most``; n = 0 is for a sum
   from which to continue. */
void checksum_factors(uint64_t *factors, size_t most);

#if defined(__x86_64__)
#include <immintrin.h>
#define CARRYLESS (__builtin_cpu_supports("pclmul") && __builtin_cpu_supports("bmi2"))
#define FOR_CARRYLESS __attribute__((target("pclmul,bmi2")))
typedef __m128i sum_t;

FOR_CARRYLESS static inline sum_t sum_zero(void) { return _mm_setzero_si128(); }

/* Adds a word times its factor to ``sum``. */
FOR_CARRYLESS static inline sum_t sum_word(sum_t sum, uint64_t word, uint64_t factor) {
    __m128i product = _mm_clmulepi64_si128(_mm_cvtsi64_si128((long long)word), _mm_cvtsi64_si128((long long)factor), 0);
    return _mm_xor_si128(sum, product);
}

/* ``sum`` advanced by the number of bytes that the factors of its two halves represent. */
FOR_CARRYLESS static inline sum_t sum_advance(sum_t sum, uint64_t first, uint64_t second) {
    __m128i factors = _mm_set_epi64x((long long)second, (long long)first);
    return _mm_xor_si128(_mm_clmulepi64_si128(sum, factors, 0x00), _mm_clmulepi64_si128(sum, factors, 0x11));
}

FOR_CARRYLESS static inline sum_t sum_both(sum_t one, sum_t two) { return _mm_xor_si128(one, two); }

FOR_CARRYLESS static inline uint32_t sum_divided(sum_t sum) {
    uint8_t text[16];
    memcpy(text, &sum, sizeof text);
    return checksum(0, text, sizeof text);
}
#else
/* Without it, sums are computed over the bytes of messages, and these functions are not called. */
#define CARRYLESS 0
#define FOR_CARRYLESS
typedef uint32_t sum_t;
static inline sum_t sum_zero(void) { return 0; }
static inline sum_t sum_word(sum_t sum, uint64_t word, uint64_t factor) { return sum ^ (sum_t)(word ^ factor); }
static inline sum_t sum_advance(sum_t sum, uint64_t first, uint64_t second) { return sum ^ (sum_t)(first ^ second); }
static inline sum_t sum_both(sum_t one, sum_t two) { return one ^ two; }
static inline uint32_t sum_divided(sum_t sum) { return sum; }
#endif

#endif

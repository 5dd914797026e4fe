/* Eight sequence numbers at once, if they have the same length and differ only in their last 36 digits, as adjacent ones do; others are
   processed one by one. The results are those of sequences.c. */

#include "octets.h"

#if defined(__x86_64__)
#include <immintrin.h>
#define WIDE __attribute__((target("avx512f,avx512bw,avx512dq,avx512vbmi")))

enum { OCTET = 8, HALF = 2 * LIMB, FIELD = 32 };

int octets_supported(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vbmi");
}

/* Where the digits of numbers of one length go: each of the two lower limbs, to the end of one half of a vector. */
typedef struct {
    size_t size;
    uint64_t whole, upper, placed;
    uint8_t sources[2 * FIELD];
} layout_t;

static void layout_set(layout_t *layout, size_t size) {
    *layout = (layout_t){.size = size, .whole = ~(uint64_t)0 >> (64 - size)};
    layout->upper = size > HALF ? ~(uint64_t)0 >> (64 - (size - HALF)) : 0;
    for (size_t limb = 0; limb < 2; limb++)
        for (size_t digit = 1; digit <= LIMB && limb * LIMB + digit <= size; digit++) {
            size_t to = (2 - limb) * FIELD - digit;
            layout->sources[to] = (uint8_t)(size - limb * LIMB - digit);
            layout->placed |= (uint64_t)1 << to;
        }
}

/* Joins pairs of four-digit numbers of 32 bits to eight-digit numbers of 64 bits. */
WIDE static inline __m512i join_fours(__m512i one, __m512i two) {
    __m512i eights = _mm512_madd_epi16(_mm512_packus_epi32(one, two), _mm512_set1_epi32(1 << 16 | 10000));
    return _mm512_add_epi64(_mm512_mul_epu32(eights, _mm512_set1_epi64(100000000)), _mm512_srli_epi64(eights, 32));
}

/* The two lower limbs of eight numbers with the upper half of ``number``; 0 if they are not of that kind. */
WIDE static inline int octet_read(const records_t *records, Py_ssize_t row, layout_t *layout, sequence_t *number, __m512i limbs[2]) {
    const uint8_t *texts[OCTET], *limit;
    size_t size = records->sequences.first[row].size, other = 0;
    for (int index = 0; index < OCTET; index++) {
        size_t own;
        texts[index] = views_at(&records->sequences, row + index, &own, &limit);
        other |= own ^ size;
    }
    if (other || !size || size > 64) return 0;
    if (size != layout->size) layout_set(layout, size);
    __m512i before = _mm512_maskz_loadu_epi8(layout->whole, texts[0]);
    int same = number->text != NULL && number->size == size &&
               !_mm512_mask_cmpneq_epu8_mask(layout->upper, before, _mm512_maskz_loadu_epi8(layout->whole, number->text));
    if (!same && !number_read(number, texts[0], size)) return 0;
    number->same = same;
    const __m512i sources = _mm512_loadu_si512(layout->sources), zero = _mm512_set1_epi8('0'), nine = _mm512_set1_epi8(9);
    __m512i fours[OCTET], pairs[OCTET / 2];
    uint64_t wrong = 0;
    for (int index = 0; index < OCTET; index++) {
        __m512i text = _mm512_maskz_loadu_epi8(layout->whole, texts[index]), digits = _mm512_sub_epi8(text, zero);
        wrong |= _mm512_mask_cmpneq_epu8_mask(layout->upper, text, before) | _mm512_mask_cmpgt_epu8_mask(layout->whole, digits, nine);
        digits = _mm512_maskz_permutexvar_epi8(layout->placed, sources, digits);
        fours[index] = _mm512_madd_epi16(_mm512_maddubs_epi16(digits, _mm512_set1_epi16(1 << 8 | 10)), _mm512_set1_epi32(1 << 16 | 100));
    }
    if (wrong) {
        number->text = NULL; /* reading them one by one begins anew */
        return 0;
    }
    for (int pair = 0; pair < OCTET / 2; pair++) pairs[pair] = join_fours(fours[2 * pair], fours[2 * pair + 1]);
    for (int limb = 0; limb < 2; limb++) {
        __m512i front = limb ? _mm512_shuffle_i64x2(pairs[0], pairs[1], 0x44) : _mm512_shuffle_i64x2(pairs[0], pairs[1], 0xEE);
        __m512i back = limb ? _mm512_shuffle_i64x2(pairs[2], pairs[3], 0x44) : _mm512_shuffle_i64x2(pairs[2], pairs[3], 0xEE);
        __m512i upper = _mm512_shuffle_i64x2(front, back, 0x88), lower = _mm512_shuffle_i64x2(front, back, 0xDD);
        limbs[limb] = _mm512_add_epi64(_mm512_mullo_epi64(upper, _mm512_set1_epi64(10000000000000000)), lower);
    }
    return 1;
}

WIDE static inline __m512i mix0_wide(__m512i value) {
    value = _mm512_mullo_epi64(_mm512_xor_si512(value, _mm512_srli_epi64(value, 30)), _mm512_set1_epi64((long long)0xBF58476D1CE4E5B9U));
    value = _mm512_mullo_epi64(_mm512_xor_si512(value, _mm512_srli_epi64(value, 27)), _mm512_set1_epi64((long long)0x94D049BB133111EBU));
    return _mm512_xor_si512(value, _mm512_srli_epi64(value, 31));
}

WIDE static inline __m512i mix1_wide(__m512i value) {
    value = _mm512_mullo_epi64(_mm512_xor_si512(value, _mm512_srli_epi64(value, 33)), _mm512_set1_epi64((long long)0xFF51AFD7ED558CCDU));
    value = _mm512_mullo_epi64(_mm512_xor_si512(value, _mm512_srli_epi64(value, 33)), _mm512_set1_epi64((long long)0xC4CEB9FE1A85EC53U));
    return _mm512_xor_si512(value, _mm512_srli_epi64(value, 33));
}

WIDE static inline void fold_wide(__m512i lanes[LANES], __m512i first, __m512i second) {
    lanes[0] = mix0_wide(_mm512_xor_si512(lanes[0], first));
    lanes[1] = mix1_wide(_mm512_xor_si512(lanes[1], second));
}

WIDE static inline __m512i all(uint64_t value) { return _mm512_set1_epi64((long long)value); }

WIDE static inline __m512i subsequences_at(const records_t *records, Py_ssize_t row) {
    const uint32_t *subsequences = records->subsequences.buf;
    return _mm512_cvtepu32_epi64(_mm256_loadu_si256((const __m256i *)(const void *)(subsequences + row)));
}

/* Each number, with 1 in place of 0. */
WIDE static inline __m512i not_zero(__m512i value) { return _mm512_mask_mov_epi64(value, _mm512_testn_epi64_mask(value, value), all(1)); }

WIDE int octets_hash(const records_t *records, hash_t *hash) {
    layout_t layout = {0};
    __m512i limbs[2], lanes[LANES], high = _mm512_setzero_si512(), low = high;
    Py_ssize_t rows = records->sequences.rows;
    for (Py_ssize_t row = 0; row < rows; row += OCTET) {
        if (rows - row < OCTET || !octet_read(records, row, &layout, &hash->number, limbs)) {
            if (!hash_rows(records, row, rows - row < OCTET ? rows - row : OCTET, hash)) return 0;
            continue;
        }
        if (!hash->number.same) hash->upper = upper_fold(&hash->number);
        for (int lane = 0; lane < LANES; lane++) lanes[lane] = all(hash->upper.lanes[lane]);
        for (int limb = 1; limb >= 0; limb--) fold_wide(lanes, limbs[limb], limbs[limb]);
        __m512i subsequences = subsequences_at(records, row);
        fold_wide(lanes, _mm512_add_epi64(subsequences, all(HASH_OFFSETS[0])), _mm512_add_epi64(subsequences, all(HASH_OFFSETS[1])));
        low = _mm512_add_epi64(low, lanes[1]);
        high = _mm512_add_epi64(high, lanes[0]);
        high = _mm512_mask_add_epi64(high, _mm512_cmplt_epu64_mask(low, lanes[1]), high, all(1));
    }
    uint64_t sums[2][OCTET];
    _mm512_storeu_si512(sums[HASH_LOW], low);
    _mm512_storeu_si512(sums[HASH_HIGH], high);
    for (int index = 0; index < OCTET; index++) hash_add(hash, sums[HASH_HIGH][index], sums[HASH_LOW][index]);
    return 1;
}

WIDE int octets_ids(const records_t *records, ids_t *ids) {
    const __m512i front = _mm512_set_epi64(11, 3, 10, 2, 9, 1, 8, 0), back = _mm512_set_epi64(15, 7, 14, 6, 13, 5, 12, 4);
    const uint64_t begin[LANES] = {mix0(ids->seeds[0]), mix1(ids->seeds[1])};
    layout_t layout = {0};
    __m512i limbs[2], lanes[LANES];
    Py_ssize_t rows = records->sequences.rows;
    for (Py_ssize_t row = 0; row < rows; row += OCTET) {
        if (rows - row < OCTET || !octet_read(records, row, &layout, &ids->number, limbs)) {
            if (!ids_rows(records, row, rows - row < OCTET ? rows - row : OCTET, ids)) return 0;
            continue;
        }
        for (int lane = 0; lane < LANES; lane++) lanes[lane] = all(begin[lane]);
        for (int limb = 0; limb < 2; limb++) fold_wide(lanes, limbs[limb], limbs[limb]);
        for (int limb = 2; limb < LIMBS; limb++) fold_wide(lanes, all(ids->number.limbs[limb]), all(ids->number.limbs[limb]));
        __m512i subsequences = _mm512_add_epi64(subsequences_at(records, row), all(IDS_OFFSET));
        fold_wide(lanes, subsequences, subsequences);
        __m512i low = not_zero(lanes[0]), high = lanes[1], own = mix0_wide(_mm512_xor_si512(high, all(ids->seeds[2])));
        __m512i span = mix1_wide(_mm512_xor_si512(_mm512_xor_si512(low, own), all(ids->seeds[3])));
        _mm512_storeu_si512(ids->traces + 2 * row, _mm512_permutex2var_epi64(low, front, high));
        _mm512_storeu_si512(ids->traces + 2 * row + OCTET, _mm512_permutex2var_epi64(low, back, high));
        _mm512_storeu_si512(ids->spans + row, not_zero(span));
    }
    return 1;
}
#else
int octets_supported(void) { return 0; }

int octets_hash(const records_t *records, hash_t *hash) { return hash_rows(records, 0, records->sequences.rows, hash); }

int octets_ids(const records_t *records, ids_t *ids) { return ids_rows(records, 0, records->sequences.rows, ids); }
#endif

/* Parquet's DELTA_BINARY_PACKED and DELTA_BYTE_ARRAY, in blocks of 128 values and four miniblocks; stream/audit/delta.py produces the same
   bytes. */

#include "delta.h"

enum { BLOCK = 128, MINIBLOCKS = 4, MINIBLOCK = BLOCK / MINIBLOCKS };

static inline uint64_t zigzag(int64_t value) { return (uint64_t)value << 1 ^ (uint64_t)(value >> 63); }

/* Packs the values of a miniblock, ``width`` bits each, the first in the lowest bits. */
#define PACK(name, kind)                                                            \
    static uint8_t *pack_##name(uint8_t *out, const kind *values, unsigned width) { \
        uint64_t bits = 0;                                                          \
        unsigned waiting = 0;                                                       \
        for (int index = 0; index < MINIBLOCK && width; index++) {                  \
            bits |= (uint64_t)values[index] << waiting;                             \
            waiting += width;                                                       \
            if (waiting < 64) continue;                                             \
            memcpy(out, &bits, 8);                                                  \
            out += 8;                                                               \
            waiting -= 64;                                                          \
            bits = waiting ? (uint64_t)values[index] >> (width - waiting) : 0;      \
        }                                                                           \
        memcpy(out, &bits, 8);                                                      \
        return out + waiting / 8;                                                   \
    }

/* Writes all values after the first in blocks. */
#define BLOCKS(name, kind, whole, most)                                                  \
    static uint8_t *blocks_##name(uint8_t *at, const whole *values, size_t count) {      \
        for (size_t first = 1; first < count; first += BLOCK) {                          \
            whole deltas[BLOCK];                                                         \
            size_t size = count - first < BLOCK ? count - first : BLOCK;                 \
            const whole *own = values + first;                                           \
            kind least = most;                                                           \
            for (size_t index = 0; index < size; index++) {                              \
                kind delta = (kind)(own[index] - own[index - 1]);                        \
                deltas[index] = (whole)delta;                                            \
                least = delta < least ? delta : least;                                   \
            }                                                                            \
            for (size_t index = 0; index < size; index++) deltas[index] -= (whole)least; \
            memset(deltas + size, 0, (BLOCK - size) * sizeof *deltas);                   \
            at = varint(at, zigzag(least));                                              \
            uint8_t *widths = at;                                                        \
            at += MINIBLOCKS;                                                            \
            for (int mini = 0; mini < MINIBLOCKS; mini++) {                              \
                const whole *part = deltas + mini * MINIBLOCK;                           \
                whole all = 0;                                                           \
                for (int index = 0; index < MINIBLOCK; index++) all |= part[index];      \
                widths[mini] = all ? (uint8_t)(64 - __builtin_clzll(all)) : 0;           \
                if (all) at = pack_##name(at, part, widths[mini]);                       \
            }                                                                            \
        }                                                                                \
        return at;                                                                       \
    }

PACK(narrow, uint32_t)
BLOCKS(narrow, int32_t, uint32_t, INT32_MAX)
PACK(broad, uint64_t)
BLOCKS(broad, int64_t, uint64_t, INT64_MAX)

typedef uint8_t *(*blocks_t)(uint8_t *at, const uint32_t *values, size_t count);

#if defined(__x86_64__)
#include <immintrin.h>

/* The same with more values at a time: eight values of ``width`` bits, at most eight, become ``width`` bytes. */
__attribute__((target("avx512f,avx512bw,bmi2"))) static inline uint8_t *pack_wide(uint8_t *out, const uint32_t *values, unsigned width) {
    if (width > 8) return pack_narrow(out, values, width);
    const uint64_t kept = 0x0101010101010101U * ((1U << width) - 1);
    for (int index = 0; index < MINIBLOCK; index += 16) {
        uint64_t bytes[2];
        _mm_storeu_si128((__m128i *)(void *)bytes, _mm512_cvtepi32_epi8(_mm512_loadu_si512(values + index)));
        for (int half = 0; half < 2; half++, out += width) {
            uint64_t bits = _pext_u64(bytes[half], kept);
            memcpy(out, &bits, 8);
        }
    }
    return out;
}

__attribute__((target("avx512f,avx512bw,bmi2"))) BLOCKS(wide, int32_t, uint32_t, INT32_MAX)

static blocks_t blocks_best(void) {
    int has = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("bmi2");
    return has ? blocks_wide : blocks_narrow;
}
#else
static blocks_t blocks_best(void) { return blocks_narrow; }
#endif

/* The most bytes that ``count`` integers take, including the padding of the last miniblock. */
static size_t max_packed_size(size_t count, int wide) { return 1024 + count * (wide ? 9 : 5); }

int delta_pack(blob_t *out, const void *values, size_t count, int wide, int quick) {
    const blocks_t blocks = quick ? blocks_best() : blocks_narrow;
    if (!blob_reserve(out, max_packed_size(count, wide))) return 0;
    uint8_t *at = out->data + out->size;
    at = varint(varint(varint(at, BLOCK), MINIBLOCKS), count);
    at = varint(at, zigzag(!count ? 0 : wide ? *(const int64_t *)values : *(const int32_t *)values));
    at = wide ? blocks_broad(at, values, count) : blocks(at, values, count);
    out->size = (size_t)(at - out->data);
    return 1;
}

static size_t shared_prefix(const uint8_t *one, const uint8_t *two, size_t size) {
    size_t index = 0;
    for (uint64_t a, b; index + 8 <= size; index += 8) {
        memcpy(&a, one + index, 8);
        memcpy(&b, two + index, 8);
        if (a != b) return index + (size_t)(__builtin_ctzll(a ^ b) >> 3);
    }
    while (index < size && one[index] == two[index]) index++;
    return index;
}

enum { AT_A_TIME = 32 };

/* Appends a suffix to ``out``, which has room for it and AT_A_TIME more bytes; short ones are copied together with the bytes after them. */
static inline void suffix_put(blob_t *out, const uint8_t *suffix, size_t size, const uint8_t *limit) {
    if (size <= AT_A_TIME && (size_t)(limit - suffix) >= AT_A_TIME) memcpy(out->data + out->size, suffix, AT_A_TIME);
    else memcpy(out->data + out->size, suffix, size);
    out->size += size;
}

int texts_pack(const views_t *texts, blob_t *out, size_t *suffixes_at, int quick) {
    size_t rows = (size_t)texts->rows, before = 0, begin = out->size, gap = 2 * max_packed_size(rows, 0);
    int32_t *prefixes = malloc((rows + 1) * 2 * sizeof *prefixes), *suffixes = prefixes + rows;
    int made = prefixes != NULL && blob_reserve(out, gap + rows * AT_A_TIME);
    const uint8_t *limit, *last = NULL;
    /* The suffixes are first written after a gap that has room for the lengths, and moved forward at the end. */
    out->size += gap;
    for (size_t row = 0; made && row < rows; row++) {
        size_t size;
        const uint8_t *text = views_at(texts, (Py_ssize_t)row, &size, &limit);
        size_t prefix = shared_prefix(text, last, size < before ? size : before);
        prefixes[row] = (int32_t)prefix;
        suffixes[row] = (int32_t)(size - prefix);
        made = blob_reserve(out, size - prefix + AT_A_TIME);
        if (made) suffix_put(out, text + prefix, size - prefix, limit);
        before = size;
        last = text;
    }
    size_t size = out->size - begin - gap;
    out->size = begin;
    made = made && delta_pack(out, prefixes, rows, 0, quick) && delta_pack(out, suffixes, rows, 0, quick);
    free(prefixes);
    if (!made) return 0;
    memmove(out->data + out->size, out->data + begin + gap, size);
    *suffixes_at = out->size;
    out->size += size;
    return 1;
}

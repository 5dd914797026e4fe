/* Sequence numbers of records in limbs, and how they are folded; stream/audit/set_hash.py and ids.py state what is promised. */

#ifndef STREAM_SEQUENCES_H
#define STREAM_SEQUENCES_H

#include "kernel.h"

enum { LIMB = 18, LIMBS = 4, LANES = 2 };

typedef struct {
    uint64_t lanes[LANES];
} lanes_t;

static inline uint64_t mix0(uint64_t value) {
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9U;
    value = (value ^ value >> 27) * 0x94D049BB133111EBU;
    return value ^ value >> 31;
}

static inline uint64_t mix1(uint64_t value) {
    value = (value ^ value >> 33) * 0xFF51AFD7ED558CCDU;
    value = (value ^ value >> 33) * 0xC4CEB9FE1A85EC53U;
    return value ^ value >> 33;
}

static inline void fold(lanes_t *state, uint64_t first, uint64_t second) {
    state->lanes[0] = mix0(state->lanes[0] ^ first);
    state->lanes[1] = mix1(state->lanes[1] ^ second);
}

/* Reads eight digits at once; 0 if there are other characters among them. */
static inline int eight_digits(const uint8_t *text, uint64_t *value) {
    uint64_t word;
    memcpy(&word, text, 8);
    if (((word & 0xF0F0F0F0F0F0F0F0U) | ((word + 0x0606060606060606U) & 0xF0F0F0F0F0F0F0F0U) >> 4) != 0x3333333333333333U) return 0;
    word = (word & 0x0F0F0F0F0F0F0F0FU) * 2561 >> 8;
    word = (word & 0x00FF00FF00FF00FFU) * 6553601 >> 16;
    word = (word & 0x0000FFFF0000FFFFU) * 42949672960001U >> 32;
    *value = *value * 100000000 + word;
    return 1;
}

static inline int digits(const uint8_t *text, size_t size, uint64_t *value) {
    *value = 0;
    for (; size >= 8; size -= 8, text += 8)
        if (!eight_digits(text, value)) return 0;
    for (; size; size--, text++) {
        if (*text < '0' || *text > '9') return 0;
        *value = *value * 10 + (*text - '0');
    }
    return 1;
}

/* A sequence number in limbs, least significant first. Adjacent numbers usually have the same upper limbs, which are then not read again. */
typedef struct {
    uint64_t limbs[LIMBS];
    const uint8_t *text;
    size_t size;
    int same; /* the upper half is that of the previous number */
} sequence_t;

static inline int number_read(sequence_t *number, const uint8_t *text, size_t size) {
    if (size < 1 || size > LIMB * LIMBS) return 0;
    size_t upper = size > 2 * LIMB ? size - 2 * LIMB : 0;
    number->same = number->text != NULL && number->size == size && !memcmp(number->text, text, upper);
    for (int limb = 0; limb < (number->same ? 2 : LIMBS); limb++) {
        size_t end = size > (size_t)limb * LIMB ? size - (size_t)limb * LIMB : 0, start = end > LIMB ? end - LIMB : 0;
        if (!digits(text + start, end - start, number->limbs + limb)) return 0;
    }
    number->text = text;
    number->size = size;
    return 1;
}

/* A column of sequence numbers and one of sub-sequence numbers. */
typedef struct {
    views_t sequences;
    Py_buffer subsequences;
} records_t;

static inline int number_at(const records_t *records, Py_ssize_t row, sequence_t *number) {
    size_t size;
    const uint8_t *limit, *text = views_at(&records->sequences, row, &size, &limit);
    return number_read(number, text, size);
}

enum { HASH_LOW = 0, HASH_HIGH = 1 };

/* The sum of the hashes of some records; ``upper`` is the fold of the upper half of ``number``. */
typedef struct {
    sequence_t number;
    lanes_t upper;
    uint64_t sum[2];
} hash_t;

static inline lanes_t upper_fold(const sequence_t *number) {
    lanes_t state = {{0, 0}};
    for (int limb = LIMBS - 1; limb >= 2; limb--) fold(&state, number->limbs[limb], number->limbs[limb]);
    return state;
}

static inline void hash_add(hash_t *hash, uint64_t high, uint64_t low) {
    hash->sum[HASH_LOW] += low;
    hash->sum[HASH_HIGH] += high + (hash->sum[HASH_LOW] < low);
}

/* Where ids are written; ``seeds`` are those of the two lanes and of the application. */
typedef struct {
    sequence_t number;
    const unsigned long long *seeds;
    uint64_t *traces, *spans;
} ids_t;

static const uint64_t HASH_OFFSETS[LANES] = {0x9E3779B97F4A7C15U, 0xD1B54A32D192ED03U};
static const uint64_t IDS_OFFSET = 0x9E3779B97F4A7C15U;

/* Hashes ``count`` records from ``row`` on; 0 if a sequence number is invalid. */
int hash_rows(const records_t *records, Py_ssize_t row, Py_ssize_t count, hash_t *hash);
int ids_rows(const records_t *records, Py_ssize_t row, Py_ssize_t count, ids_t *ids);

#endif

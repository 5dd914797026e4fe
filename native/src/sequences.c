/* Hashes and ids of records by their sequence numbers; stream/audit/set_hash.py and ids.py define them. */

#include "sequences.h"

/* Records that are folded side by side: each fold depends on the previous one of its record, but not on those of other records. */
enum { ABREAST = 4 };

int hash_rows(const records_t *records, Py_ssize_t row, Py_ssize_t count, hash_t *hash) {
    const uint32_t *subsequences = records->subsequences.buf;
    sequence_t *number = &hash->number;
    for (Py_ssize_t end = row + count; row < end; row += ABREAST) {
        Py_ssize_t left = end - row, abreast = left < ABREAST ? left : ABREAST;
        uint64_t limbs[ABREAST][2] = {{0}};
        lanes_t states[ABREAST];
        for (Py_ssize_t index = 0; index < abreast; index++) {
            if (!number_at(records, row + index, number)) return 0;
            if (!number->same) hash->upper = upper_fold(number);
            states[index] = hash->upper;
            memcpy(limbs[index], number->limbs, sizeof limbs[index]);
        }
        for (int limb = 1; limb >= 0; limb--)
            for (Py_ssize_t index = 0; index < abreast; index++) fold(states + index, limbs[index][limb], limbs[index][limb]);
        for (Py_ssize_t index = 0; index < abreast; index++) {
            uint64_t subsequence = subsequences[row + index];
            fold(states + index, subsequence + HASH_OFFSETS[0], subsequence + HASH_OFFSETS[1]);
            hash_add(hash, states[index].lanes[0], states[index].lanes[1]);
        }
    }
    return 1;
}

int ids_rows(const records_t *records, Py_ssize_t row, Py_ssize_t count, ids_t *ids) {
    const uint32_t *subsequences = records->subsequences.buf;
    const unsigned long long *seeds = ids->seeds;
    const lanes_t begin = {{mix0(seeds[0]), mix1(seeds[1])}};
    for (Py_ssize_t end = row + count; row < end; row += ABREAST) {
        Py_ssize_t left = end - row, abreast = left < ABREAST ? left : ABREAST;
        uint64_t limbs[ABREAST][LIMBS];
        lanes_t states[ABREAST];
        for (Py_ssize_t index = 0; index < abreast; index++) {
            if (!number_at(records, row + index, &ids->number)) return 0;
            states[index] = begin;
            memcpy(limbs[index], ids->number.limbs, sizeof ids->number.limbs);
        }
        for (int limb = 0; limb < LIMBS; limb++)
            for (Py_ssize_t index = 0; index < abreast; index++) fold(states + index, limbs[index][limb], limbs[index][limb]);
        for (Py_ssize_t index = 0; index < abreast; index++) {
            uint64_t subsequence = subsequences[row + index] + IDS_OFFSET;
            fold(states + index, subsequence, subsequence);
            uint64_t low = states[index].lanes[0] + !states[index].lanes[0], high = states[index].lanes[1];
            uint64_t span = mix1(low ^ mix0(high ^ seeds[2]) ^ seeds[3]);
            ids->traces[2 * (row + index)] = low;
            ids->traces[2 * (row + index) + 1] = high;
            ids->spans[row + index] = span + !span;
        }
    }
    return 1;
}

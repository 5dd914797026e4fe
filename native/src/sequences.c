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
        for (Py_ssize_t place = 0; place < abreast; place++) {
            if (!number_at(records, row + place, number)) return 0;
            if (!number->same) hash->upper = upper_fold(number);
            states[place] = hash->upper;
            memcpy(limbs[place], number->limbs, sizeof limbs[place]);
        }
        for (int limb = 1; limb >= 0; limb--)
            for (Py_ssize_t place = 0; place < abreast; place++) fold(states + place, limbs[place][limb], limbs[place][limb]);
        for (Py_ssize_t place = 0; place < abreast; place++) {
            uint64_t subsequence = subsequences[row + place];
            fold(states + place, subsequence + HASH_OFFSETS[0], subsequence + HASH_OFFSETS[1]);
            hash_add(hash, states[place].lanes[0], states[place].lanes[1]);
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
        for (Py_ssize_t place = 0; place < abreast; place++) {
            if (!number_at(records, row + place, &ids->number)) return 0;
            states[place] = begin;
            memcpy(limbs[place], ids->number.limbs, sizeof ids->number.limbs);
        }
        for (int limb = 0; limb < LIMBS; limb++)
            for (Py_ssize_t place = 0; place < abreast; place++) fold(states + place, limbs[place][limb], limbs[place][limb]);
        for (Py_ssize_t place = 0; place < abreast; place++) {
            uint64_t subsequence = subsequences[row + place] + IDS_OFFSET;
            fold(states + place, subsequence, subsequence);
            uint64_t low = states[place].lanes[0] + !states[place].lanes[0], high = states[place].lanes[1];
            uint64_t span = mix1(low ^ mix0(high ^ seeds[2]) ^ seeds[3]);
            ids->traces[2 * (row + place)] = low;
            ids->traces[2 * (row + place) + 1] = high;
            ids->spans[row + place] = span + !span;
        }
    }
    return 1;
}

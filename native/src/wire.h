/* Shared by the binary encodings: varints, texts, and floating-point numbers as Python would pass them on. */

#ifndef STREAM_WIRE_H
#define STREAM_WIRE_H

#include "kernel.h"

/* Reads a varint of up to 64 bits, low bits first; 0 if it does not end in time or has more bits. */
static inline int read_varint(text_t *text, uint64_t *value) {
    const uint8_t *at = text->at;
    if (at >= text->end) return 0;
    uint64_t byte = *at++, made = byte & 127;
    for (int shift = 7; byte & 128; shift += 7) {
        if (at >= text->end || shift > 63) return 0;
        byte = *at++;
        if (shift == 63 && byte > 1) return 0;
        made |= (byte & 127) << shift;
    }
    text->at = at;
    *value = made;
    return 1;
}

static inline int64_t unzigzag(uint64_t value) { return (int64_t)(value >> 1 ^ (0 - (value & 1))); }

/* Takes ``size`` bytes off; NULL if there are fewer. */
static inline const uint8_t *read_part(text_t *text, uint64_t size) {
    const uint8_t *from = text->at;
    if (size > (uint64_t)(text->end - from)) return NULL;
    text->at = from + size;
    return from;
}

static inline int is_text(const uint8_t *at, size_t size) {
    const uint8_t *end = at + size, *from = at;
    uint64_t high = 0, word;
    if (size >= sizeof word) {
        for (; (size_t)(end - at) >= sizeof word; at += sizeof word) {
            memcpy(&word, at, sizeof word);
            high |= word;
        }
        memcpy(&word, end - sizeof word, sizeof word);
        high |= word;
    } else
        for (; at < end; at++) high |= *at;
    return !(high & 0x8080808080808080ULL) || is_utf8(from, end);
}

/* Conversion to double turns a signalling NaN into a quiet one. */
static inline uint32_t quiet(uint32_t bits) { return (bits & 0x7fffffff) > 0x7f800000 ? bits | 0x400000 : bits; }

static inline int put_float(text_t *text, size_t width, uint8_t *values, int64_t row) {
    uint32_t bits;
    float single;
    const uint8_t *from = read_part(text, sizeof bits);
    if (from == NULL) return 0;
    memcpy(&bits, from, sizeof bits);
    bits = quiet(bits);
    if (width == sizeof bits) ((uint32_t *)values)[row] = bits;
    else {
        memcpy(&single, &bits, sizeof single);
        ((double *)values)[row] = (double)single;
    }
    return 1;
}

static inline int put_double(text_t *text, uint8_t *values, int64_t row) {
    const uint8_t *from = read_part(text, sizeof(double));
    if (from == NULL) return 0;
    memcpy(values + (size_t)row * sizeof(double), from, sizeof(double));
    return 1;
}

static inline void put_bit(uint8_t *values, int64_t row, uint64_t bit) { values[row >> 3] |= (uint8_t)(bit << (row & 7)); }

/* An entry of a map in the record; maps are written in the order of their keys. */
typedef struct {
    const uint8_t *key, *value; /* ``value`` may be NULL */
    uint64_t key_size;          /* or the key itself, if it is numeric */
    uint64_t value_size;
    Py_ssize_t node;            /* of the map, if several are read at a time */
} entry_t;

int entry_push(blob_t *entries, const entry_t *entry);
/* Sorts the entries from byte ``from`` on with ``compare``; 0 if two compare equal. */
int entries_sort(blob_t *entries, size_t from, int (*compare)(const void *, const void *));

#endif

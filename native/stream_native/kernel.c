/* One JSON object per record to columns, for flat schemas: see decode() in stream/transform/decoders/native.py for what it promises.

   The kernel vouches for a row or it does not. It reads exactly the JSON that needs no second thought: no escapes in values of columns
   or in names, no name of a column twice, no control characters, valid UTF-8, numbers that a double or an int64 holds exactly as written.
   A row that is anything else is marked and left to the caller, so being strict here costs time and never changes a result. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <string.h>

enum { TEXT = 0, INTEGER = 1, REAL = 2, FLAG = 3 };
enum { MAX_DEPTH = 100, MAX_FIELDS = 1024, INLINE = 12 };

typedef struct {
    const char *name;
    int64_t size;
    int64_t type;
    void *values;   /* TEXT: 16-byte views; INTEGER: int64; REAL: double; FLAG: bytes */
    uint8_t *valid; /* one byte a row */
} field_t;

static const uint8_t *string_end(const uint8_t *at, const uint8_t *end, int *escaped, int *high) {
    /* Behind the opening quote; the closing quote, or NULL. */
    uint64_t seen = 0;
    *escaped = 0;
    for (;;) {
        while (end - at >= 8) {
            uint64_t word, quotes, slashes;
            memcpy(&word, at, 8);
            quotes = word ^ 0x2222222222222222ULL;
            slashes = word ^ 0x5c5c5c5c5c5c5c5cULL;
            if (((quotes - 0x0101010101010101ULL) & ~quotes & 0x8080808080808080ULL) |
                ((slashes - 0x0101010101010101ULL) & ~slashes & 0x8080808080808080ULL) |
                ((word - 0x2020202020202020ULL) & ~word & 0x8080808080808080ULL))
                break;
            seen |= word;
            at += 8;
        }
        for (;; at++) {
            if (at >= end) return NULL;
            if (*at == '"') {
                *high = (seen & 0x8080808080808080ULL) != 0;
                return at;
            }
            if (*at < 0x20) return NULL;
            if (*at == '\\') break;
            seen |= (uint64_t)*at;
            if (end - at > 8 && ((uintptr_t)at & 7) == 7) {
                at++;
                goto more;
            }
        }
        /* An escape: passed over here, checked by escape_size. */
        *escaped = 1;
        if (end - at < 2) return NULL;
        if (at[1] == 'u') {
            if (end - at < 6) return NULL;
            for (int place = 2; place < 6; place++) {
                uint8_t code = at[place];
                if (!((code >= '0' && code <= '9') || ((code | 32) >= 'a' && (code | 32) <= 'f'))) return NULL;
            }
            /* Surrogates have to come in pairs, which is the caller's business. */
            if ((at[2] | 32) == 'd' && at[3] >= '8') return NULL;
            at += 6;
        } else {
            if (at[1] == 0 || !strchr("\"\\/bfnrt", at[1])) return NULL;
            at += 2;
        }
    more:;
    }
}

static int is_utf8(const uint8_t *at, const uint8_t *end) {
    while (at < end) {
        uint8_t first = *at++;
        int more, least = 0x80, most = 0xBF;
        if (first < 0x80) continue;
        if (first >= 0xC2 && first <= 0xDF) more = 1;
        else if (first >= 0xE0 && first <= 0xEF) {
            more = 2;
            if (first == 0xE0) least = 0xA0;
            if (first == 0xED) most = 0x9F;
        } else if (first >= 0xF0 && first <= 0xF4) {
            more = 3;
            if (first == 0xF0) least = 0x90;
            if (first == 0xF4) most = 0x8F;
        } else return 0;
        for (; more; more--, least = 0x80, most = 0xBF)
            if (at >= end || *at < least || *at > most) return 0;
            else at++;
    }
    return 1;
}

static const uint8_t *blanks(const uint8_t *at, const uint8_t *end) {
    while (at < end && *at == ' ') at++;
    return at;
}

static const uint8_t *literal(const uint8_t *at, const uint8_t *end, const char *word, int size) {
    return end - at >= size && !memcmp(at, word, (size_t)size) ? at + size : NULL;
}

/* The end of a number; its digits as an integer where they fit 19 places, and its decimal exponent. */
static const uint8_t *number(const uint8_t *at, const uint8_t *end, int *negative, uint64_t *digits, int *exponent, int *whole, int *exact) {
    const uint8_t *begin;
    int places = 0;
    *negative = at < end && *at == '-';
    at += *negative;
    *digits = 0, *exponent = 0, *whole = 1, *exact = 1;
    begin = at;
    if (at >= end || *at < '0' || *at > '9') return NULL;
    while (at < end && *at >= '0' && *at <= '9') {
        if (places < 18) *digits = *digits * 10 + (*at - '0');
        if (*digits) places++;
        at++;
    }
    if (*begin == '0' && at - begin > 1) return NULL;
    if (at < end && *at == '.') {
        const uint8_t *point = ++at;
        *whole = 0;
        while (at < end && *at >= '0' && *at <= '9') {
            if (places < 18) *digits = *digits * 10 + (*at - '0'), --*exponent;
            if (*digits) places++;
            at++;
        }
        if (at == point) return NULL;
    }
    if (places > 18) *exact = 0;
    if (at < end && (*at | 32) == 'e') {
        int minus, value = 0;
        const uint8_t *first;
        *whole = 0;
        at++;
        minus = at < end && *at == '-';
        if (at < end && (*at == '-' || *at == '+')) at++;
        first = at;
        while (at < end && *at >= '0' && *at <= '9') {
            if (value < 10000) value = value * 10 + (*at - '0');
            at++;
        }
        if (at == first) return NULL;
        *exponent += minus ? -value : value;
    }
    return at;
}

static const double POWERS[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};

/* Behind any JSON value, or NULL where the kernel does not vouch for it. */
static const uint8_t *skip(const uint8_t *at, const uint8_t *end, int depth) {
    int escaped, high, negative, exponent, whole, exact;
    uint64_t digits;
    at = blanks(at, end);
    if (at >= end || depth > MAX_DEPTH) return NULL;
    if (*at == '"') {
        const uint8_t *close = string_end(at + 1, end, &escaped, &high);
        return close && (!high || is_utf8(at + 1, close)) ? close + 1 : NULL;
    }
    if (*at == '{' || *at == '[') {
        uint8_t open = *at, close = open == '{' ? '}' : ']';
        at = blanks(at + 1, end);
        if (at < end && *at == close) return at + 1;
        for (;;) {
            if (open == '{') {
                at = blanks(at, end);
                if (at >= end || *at != '"' || !(at = skip(at, end, depth + 1))) return NULL;
                at = blanks(at, end);
                if (at >= end || *at++ != ':') return NULL;
            }
            if (!(at = skip(at, end, depth + 1))) return NULL;
            at = blanks(at, end);
            if (at >= end) return NULL;
            if (*at == close) return at + 1;
            if (*at++ != ',') return NULL;
        }
    }
    if (*at == 't') return literal(at, end, "true", 4);
    if (*at == 'f') return literal(at, end, "false", 5);
    if (*at == 'n') return literal(at, end, "null", 4);
    at = number(at, end, &negative, &digits, &exponent, &whole, &exact);
    /* What overflows a double is refused by some readers and not by others. */
    return at && exact && exponent < 280 && exponent > -280 ? at : NULL;
}

static const uint8_t *value(const uint8_t *at, const uint8_t *end, const field_t *field, int64_t row, const uint8_t *data) {
    int escaped, high, negative, exponent, whole, exact;
    uint64_t digits;
    if (at >= end) return NULL;
    if (*at == 'n') return literal(at, end, "null", 4);
    field->valid[row] = 1;
    if (field->type == TEXT) {
        const uint8_t *close;
        uint32_t *view = (uint32_t *)((char *)field->values + 16 * row);
        int64_t size;
        if (*at != '"') return NULL;
        close = string_end(++at, end, &escaped, &high);
        if (!close || escaped || (high && !is_utf8(at, close))) return NULL;
        size = close - at;
        view[0] = (uint32_t)size;
        if (size <= INLINE) memcpy(view + 1, at, (size_t)size);
        else {
            memcpy(view + 1, at, 4);
            view[3] = (uint32_t)(at - data);
        }
        return close + 1;
    }
    if (field->type == FLAG) {
        ((uint8_t *)field->values)[row] = *at == 't';
        return *at == 't' ? literal(at, end, "true", 4) : literal(at, end, "false", 5);
    }
    at = number(at, end, &negative, &digits, &exponent, &whole, &exact);
    if (!at || !exact) return NULL;
    if (field->type == INTEGER) {
        if (!whole || (negative && !digits)) return NULL;
        ((int64_t *)field->values)[row] = negative ? -(int64_t)digits : (int64_t)digits;
        return at;
    }
    /* Both factors are exact doubles, so one multiplication or division rounds as it should. */
    if (digits > (1ULL << 53) || exponent > 22 || exponent < -22) return NULL;
    {
        double real = (double)digits;
        real = exponent < 0 ? real / POWERS[-exponent] : real * POWERS[exponent];
        ((double *)field->values)[row] = negative ? -real : real;
    }
    return at;
}

static int record(const uint8_t *at, const uint8_t *end, const field_t *fields, int64_t count, int64_t row, const uint8_t *data, uint64_t *seen) {
    int64_t next = 0;
    memset(seen, 0, sizeof(uint64_t) * (size_t)((count + 63) / 64));
    at = blanks(at, end);
    if (at >= end || *at != '{') return 0;
    at = blanks(at + 1, end);
    if (at < end && *at == '}') return blanks(at + 1, end) == end;
    for (;;) {
        const uint8_t *name, *close;
        int escaped, high;
        int64_t size, tried, found = -1;
        at = blanks(at, end);
        if (at >= end || *at != '"') return 0;
        name = at + 1;
        close = string_end(name, end, &escaped, &high);
        if (!close || escaped || (high && !is_utf8(name, close))) return 0;
        size = close - name;
        /* Producers write their fields in one order: look behind the last one first. */
        for (tried = 0; tried < count; tried++, next = next + 1 < count ? next + 1 : 0)
            if (fields[next].size == size && !memcmp(fields[next].name, name, (size_t)size)) {
                found = next;
                next = next + 1 < count ? next + 1 : 0;
                break;
            }
        at = blanks(close + 1, end);
        if (at >= end || *at++ != ':') return 0;
        at = blanks(at, end);
        if (found < 0) at = skip(at, end, 1);
        else {
            if (seen[found / 64] >> (found % 64) & 1) return 0;
            seen[found / 64] |= 1ULL << (found % 64);
            at = value(at, end, fields + found, row, data);
        }
        if (!at) return 0;
        at = blanks(at, end);
        if (at >= end) return 0;
        if (*at == '}') return blanks(at + 1, end) == end;
        if (*at++ != ',') return 0;
    }
}

/* Marks in bad every row that it does not vouch for, whose values mean nothing, and returns their number; -1 for too many fields. */
__attribute__((visibility("default"))) int64_t stream_decode(const uint8_t *data, const int64_t *offsets, int64_t rows,
                                                             const field_t *fields, int64_t count, uint8_t *bad) {
    uint64_t seen[MAX_FIELDS / 64];
    int64_t wrong = 0;
    if (count > MAX_FIELDS) return -1;
    for (int64_t row = 0; row < rows; row++) {
        bad[row] = !record(data + offsets[row], data + offsets[row + 1], fields, count, row, data, seen);
        wrong += bad[row];
    }
    return wrong;
}

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_kernel", NULL, 0, NULL, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__kernel(void) { return PyModule_Create(&module); }

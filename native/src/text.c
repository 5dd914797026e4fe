/* Readers of JSON strings and numbers, and skipping of values; together as strict as the strictest of all readers. */

#include "kernel.h"

#include <locale.h>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

/* The meaning of a character after a backslash; zero if it has none. */
static const uint8_t MEANT[256] = {['"'] = '"', ['\\'] = '\\', ['/'] = '/', ['b'] = '\b', ['f'] = '\f', ['n'] = '\n', ['r'] = '\r', ['t'] = '\t'};

/* Skips bytes from ``at`` on that are neither quote nor backslash nor control character; may also skip escapes of two bytes, and then sets
   ``escaped``. Sets ``high`` if a byte is not ASCII. */
static inline const uint8_t *plain(const uint8_t *at, const uint8_t *limit, unsigned *high, int *escaped) {
#if defined(__SSE2__)
    const __m128i quote = _mm_set1_epi8('"'), slash = _mm_set1_epi8('\\'), control = _mm_set1_epi8(0x1f);
    while (limit - at >= 16) {
        __m128i piece = _mm_loadu_si128((const __m128i *)at);
        __m128i stop = _mm_or_si128(_mm_or_si128(_mm_cmpeq_epi8(piece, quote), _mm_cmpeq_epi8(piece, slash)),
                                    _mm_cmpeq_epi8(_mm_min_epu8(piece, control), piece));
        unsigned stops = (unsigned)_mm_movemask_epi8(stop), highs = (unsigned)_mm_movemask_epi8(piece);
        for (; stops; *escaped = 1) {
            unsigned place = (unsigned)__builtin_ctz(stops);
            if (at[place] != '\\' || place == 15 || !MEANT[at[place + 1]]) {
                *high |= highs & ((1u << place) - 1);
                return at + place;
            }
            stops &= ~(3u << place);
        }
        *high |= highs;
        at += 16;
    }
#else
    (void)escaped;
    const uint64_t ones = 0x0101010101010101ULL, tops = 0x8080808080808080ULL;
    while (limit - at >= 8) {
        uint64_t word;
        memcpy(&word, at, 8);
        uint64_t quotes = word ^ (ones * '"'), slashes = word ^ (ones * '\\');
        if ((((quotes - ones) & ~quotes) | ((slashes - ones) & ~slashes) | ((word - ones * 0x20) & ~word)) & tops) break;
        *high |= (word & tops) != 0;
        at += 8;
    }
#endif
    while (at < limit && *at != '"' && *at != '\\' && *at >= 0x20) *high |= *at++ & 0x80;
    return at;
}

int is_utf8(const uint8_t *at, const uint8_t *end) {
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

static int hex4(const uint8_t *at) {
    int code = 0;
    for (int place = 0; place < 4; place++) {
        uint8_t digit = at[place];
        int value = digit >= '0' && digit <= '9' ? digit - '0' : (digit | 32) >= 'a' && (digit | 32) <= 'f' ? (digit | 32) - 'a' + 10 : -1;
        if (value < 0) return -1;
        code = code << 4 | value;
    }
    return code;
}

/* The size of the escape at ``at``, which is a backslash, or 0; a pair of surrogates is one escape of 12 bytes. */
static int escape_size(const uint8_t *at, const uint8_t *end) {
    if (end - at < 2) return 0;
    if (at[1] != 'u') return MEANT[at[1]] ? 2 : 0;
    if (end - at < 6) return 0;
    int code = hex4(at + 2);
    if (code < 0 || (code >= 0xDC00 && code < 0xE000)) return 0;
    if (code < 0xD800 || code >= 0xE000) return 6;
    if (end - at < 12 || at[6] != '\\' || at[7] != 'u') return 0;
    int low = hex4(at + 8);
    return low >= 0xDC00 && low < 0xE000 ? 12 : 0;
}

int read_string(text_t *text, string_t *string) {
    unsigned high = 0;
    const uint8_t *at = text->at;
    string->begin = at;
    string->escaped = 0;
    for (;;) {
        at = plain(at, text->limit, &high, &string->escaped);
        if (at >= text->end) return 0;
        if (*at == '"') break;
        if (*at != '\\') return 0;
        int size = escape_size(at, text->end);
        if (size == 0) return 0;
        string->escaped = 1;
        at += size;
    }
    string->close = at;
    text->at = at + 1;
    return !high || is_utf8(string->begin, at);
}

/* The code point of the escape at ``*at``; moves ``*at`` after it. */
static inline uint32_t escape_code(const uint8_t **at) {
    const uint8_t *text = *at;
    *at += text[1] == 'u' ? 6 : 2;
    if (text[1] != 'u') return MEANT[text[1]];
    uint32_t code = (uint32_t)hex4(text + 2);
    if (code < 0xD800 || code >= 0xE000) return code;
    *at += 6;
    return 0x10000 + ((code - 0xD800) << 10) + ((uint32_t)hex4(text + 8) - 0xDC00);
}

static uint8_t *put_code(uint8_t *to, uint32_t code) {
    if (code < 0x80) *to++ = (uint8_t)code;
    else if (code < 0x800) {
        *to++ = (uint8_t)(0xC0 | code >> 6);
        *to++ = (uint8_t)(0x80 | (code & 63));
    } else if (code < 0x10000) {
        *to++ = (uint8_t)(0xE0 | code >> 12);
        *to++ = (uint8_t)(0x80 | (code >> 6 & 63));
        *to++ = (uint8_t)(0x80 | (code & 63));
    } else {
        *to++ = (uint8_t)(0xF0 | code >> 18);
        *to++ = (uint8_t)(0x80 | (code >> 12 & 63));
        *to++ = (uint8_t)(0x80 | (code >> 6 & 63));
        *to++ = (uint8_t)(0x80 | (code & 63));
    }
    return to;
}

/* As ``put_code``, but escaped if JSON requires it. */
static uint8_t *put_escaped(uint8_t *to, uint32_t code) {
    static const char plain[] = "\"\\\b\f\n\r\t", letters[] = "\"\\bfnrt", digits[] = "0123456789abcdef";
    const char *place = code && code < 0x80 ? strchr(plain, (int)code) : NULL;
    if (place == NULL && code >= 0x20) return put_code(to, code);
    *to++ = '\\';
    if (place != NULL) {
        *to++ = (uint8_t)letters[place - plain];
        return to;
    }
    memcpy(to, "u00", 3);
    to[3] = (uint8_t)digits[code >> 4];
    to[4] = (uint8_t)digits[code & 15];
    return to + 5;
}

enum { COPIED = 16 };

/* Copies the string, with the output of ``put`` for each escape, which is never longer than the escape. */
static inline uint8_t *rewrite(const string_t *string, uint8_t *to, uint8_t *(*put)(uint8_t *, uint32_t)) {
    const uint8_t *at = string->begin, *close = string->close;
    while (at < close) {
#if defined(__SSE2__)
        while (close - at >= COPIED) {
            __m128i piece = _mm_loadu_si128((const __m128i *)at);
            unsigned slashes = (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(piece, _mm_set1_epi8('\\')));
            _mm_storeu_si128((__m128i *)to, piece);
            int whole = slashes ? __builtin_ctz(slashes) : COPIED;
            at += whole;
            to += whole;
            if (slashes) to = put(to, escape_code(&at));
        }
#endif
        if (at < close && *at == '\\') to = put(to, escape_code(&at));
        else if (at < close) *to++ = *at++;
    }
    return to;
}

int unescape(const string_t *string, blob_t *out) {
    if (!blob_reserve(out, (size_t)(string->close - string->begin))) return 0;
    out->size = (size_t)(rewrite(string, out->data + out->size, put_code) - out->data);
    return 1;
}

int escape_again(const string_t *string, blob_t *out) {
    if (!blob_reserve(out, (size_t)(string->close - string->begin) + 2)) return 0;
    out->data[out->size] = '"';
    uint8_t *end = rewrite(string, out->data + out->size + 1, put_escaped);
    *end++ = '"';
    out->size = (size_t)(end - out->data);
    return 1;
}

int read_number(text_t *text, number_t *number) {
    const uint8_t *at = text->at, *end = text->end, *first;
    uint64_t digits = 0;
    int places = 0, exponent = 0;
    number->begin = at;
    number->negative = at < end && *at == '-';
    at += number->negative;
    number->whole = number->exact = 1;
    first = at;
    for (; at < end && (uint8_t)(*at - '0') < 10; at++) {
        if (places < 19) digits = digits * 10 + (uint64_t)(*at - '0');
        places += digits != 0;
    }
    if (at == first || (*first == '0' && at - first > 1)) return 0;
    if (at < end && *at == '.') {
        const uint8_t *point = ++at;
        number->whole = 0;
        for (; at < end && (uint8_t)(*at - '0') < 10; at++) {
            if (places < 19) digits = digits * 10 + (uint64_t)(*at - '0'), exponent--;
            places += digits != 0;
        }
        if (at == point) return 0;
    }
    /* The 20th digit is not in ``digits``. */
    if (places > 19) number->exact = 0;
    if (at < end && (*at | 32) == 'e') {
        int minus, value = 0;
        number->whole = 0;
        at++;
        minus = at < end && *at == '-';
        if (at < end && (*at == '-' || *at == '+')) at++;
        first = at;
        for (; at < end && (uint8_t)(*at - '0') < 10; at++)
            if (value < 10000) value = value * 10 + (*at - '0');
        if (at == first) return 0;
        exponent += minus ? -value : value;
    }
    number->digits = digits;
    number->exponent = exponent;
    number->end = text->at = at;
    return 1;
}

static const double POWERS[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};

int number_real(const number_t *number, double *real) {
    if (number->exact && number->digits <= 1ULL << 53 && number->exponent <= 22 && number->exponent >= -22) {
        /* Both factors are exact doubles, so one multiplication or division rounds correctly. */
        double value = (double)number->digits;
        value = number->exponent < 0 ? value / POWERS[-number->exponent] : value * POWERS[number->exponent];
        *real = number->negative ? -value : value;
        return 1;
    }
    char copy[64];
    size_t size = (size_t)(number->end - number->begin);
    if (size >= sizeof copy) return 0;
    memcpy(copy, number->begin, size);
    copy[size] = 0;
    static locale_t plain_numbers;
    if (plain_numbers == (locale_t)0) plain_numbers = newlocale(LC_NUMERIC_MASK, "C", (locale_t)0);
    if (plain_numbers == (locale_t)0) return 0;
    *real = strtod_l(copy, NULL, plain_numbers);
    double size_of = *real < 0 ? -*real : *real;
    return size_of < 1e300 && size_of > 1e-290;
}

int skip_value(text_t *text, int depth) {
    string_t string;
    blanks(text);
    if (text->at >= text->end || depth > MAX_DEPTH) return 0;
    uint8_t open = *text->at;
    if (open == '"') {
        text->at++;
        return read_string(text, &string);
    }
    if (open == '{' || open == '[') {
        uint8_t close = open == '{' ? '}' : ']';
        text->at++;
        blanks(text);
        if (text->at < text->end && *text->at == close) {
            text->at++;
            return 1;
        }
        for (;;) {
            if (open == '{') {
                blanks(text);
                if (text->at >= text->end || *text->at++ != '"' || !read_string(text, &string)) return 0;
                blanks(text);
                if (text->at >= text->end || *text->at++ != ':') return 0;
            }
            if (!skip_value(text, depth + 1)) return 0;
            blanks(text);
            if (text->at >= text->end) return 0;
            if (*text->at == close) {
                text->at++;
                return 1;
            }
            if (*text->at++ != ',') return 0;
        }
    }
    if (open == 't') return literal(text, "true", 4);
    if (open == 'f') return literal(text, "false", 5);
    if (open == 'n') return literal(text, "null", 4);
    number_t number;
    /* Some readers refuse numbers that overflow a double, others do not. */
    return read_number(text, &number) && number.exact && number.exponent < 280 && number.exponent > -280;
}

/* Gzip files (RFC 1952) to what is in them. What this vouches for zlib reads to the same bytes; the rest is marked. */

#include "deflate.h"

enum {
    PRIMARY = 9, DISTANCE_PRIMARY = 7, LONGEST_BITS = 15,
    /* A code beyond the primary bits shares them with another one at least. */
    LITERAL_ENTRIES = (1 << PRIMARY) + (LITERALS + 2) / 2 * (1 << (LONGEST_BITS - PRIMARY)),
    DISTANCE_ENTRIES = (1 << DISTANCE_PRIMARY) + 32 / 2 * (1 << (LONGEST_BITS - DISTANCE_PRIMARY)),
    SLACK = LONGEST + 32 /* bytes that may be written behind what is there */
};

/* What an entry of a table is; of a length or distance the number of extra bits is in the lower half. */
enum { LITERAL = 16, END = 32, FURTHER = 64, INVALID = 128, EXTRA = 15 };

typedef struct {
    uint16_t value; /* literal, base of a length or distance, or where the further table begins */
    uint8_t what, bits;
} entry_t;

typedef struct {
    const uint8_t *at, *end;
    uint64_t bits;
    unsigned count;   /* of ``bits`` */
    unsigned missing; /* bytes of zeros that stand for what is behind the end */
} input_t;

typedef struct {
    entry_t literals[LITERAL_ENTRIES], distances[DISTANCE_ENTRIES], fixed_literals[1 << PRIMARY], fixed_distances[1 << DISTANCE_PRIMARY];
    entry_t of_literal[LITERALS + 2], of_distance[DISTANCES + 2], of_length[19]; /* what symbols mean */
    blob_t out;
    size_t limit; /* ``out`` may grow to */
} inflater_t;

static inline void refill(input_t *in) {
    if (in->end - in->at >= 8) {
        uint64_t more;
        memcpy(&more, in->at, sizeof more);
        in->bits |= more << in->count;
        in->at += (63 - in->count) >> 3;
        in->count |= 56;
        return;
    }
    for (; in->count <= 56; in->count += 8) {
        if (in->at < in->end) in->bits |= (uint64_t)*in->at++ << in->count;
        else in->missing++;
    }
}

static inline unsigned take(input_t *in, unsigned count) {
    unsigned value = (unsigned)(in->bits & ((1ULL << count) - 1));
    in->bits >>= count;
    in->count -= count;
    return value;
}

/* What symbols mean. */
static entry_t literal_meaning(int symbol) {
    static const uint16_t bases[] = {3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258};
    static const uint8_t extras[] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0};
    if (symbol < END_OF_BLOCK) return (entry_t){(uint16_t)symbol, LITERAL, 0};
    if (symbol == END_OF_BLOCK) return (entry_t){0, END, 0};
    if (symbol >= LITERALS) return (entry_t){0, INVALID, 0};
    return (entry_t){bases[symbol - END_OF_BLOCK - 1], extras[symbol - END_OF_BLOCK - 1], 0};
}

static entry_t distance_meaning(int symbol) {
    unsigned extra = symbol < 4 ? 0 : (unsigned)symbol / 2 - 1;
    if (symbol >= DISTANCES) return (entry_t){0, INVALID, 0};
    return (entry_t){(uint16_t)(symbol < 4 ? symbol + 1 : ((2 + (symbol & 1)) << extra) + 1), (uint8_t)extra, 0};
}

/* The code behind ``code`` of ``bits`` bits, both with their first bit lowest. */
static inline unsigned next_code(unsigned code, unsigned bits) {
    unsigned bit = 1u << (bits - 1);
    while (code & bit) bit >>= 1;
    return bit ? (code & (bit - 1)) | bit : 0;
}

/* Codes that are longer than ``primary`` bits, from ``code`` on: their first bits lead to tables behind the primary one. */
static void build_further(entry_t *table, unsigned primary, const uint16_t *sorted, const uint8_t *lengths, const entry_t *meanings, int count,
                          unsigned code, unsigned bits) {
    unsigned further = lengths[sorted[count - 1]] - primary, place = 0, prefix = ~0U;
    for (int at = 0; at < count; at++) {
        for (; bits < lengths[sorted[at]]; bits++);
        if ((code & ((1u << primary) - 1)) != prefix) {
            prefix = code & ((1u << primary) - 1);
            place = place ? place + (1u << further) : 1u << primary;
            table[prefix] = (entry_t){(uint16_t)place, FURTHER, (uint8_t)(primary + further)};
        }
        entry_t entry = meanings[sorted[at]];
        entry.bits = (uint8_t)bits;
        for (unsigned slot = code >> primary; slot < 1u << further; slot += 1u << (bits - primary)) table[place + slot] = entry;
        code = next_code(code, bits);
    }
}

/* The table for codes of these lengths; 0 unless they use up all codes or, with ``lone``, are one of a single bit or none at all. */
static int build(entry_t *table, unsigned primary, const uint8_t *lengths, int count, const entry_t *meanings, int lone) {
    unsigned counts[LONGEST_BITS + 1] = {0}, begins[LONGEST_BITS + 2], code = 0, size = 1;
    uint16_t sorted[LITERALS + 2];
    int left = 1;
    for (int symbol = 0; symbol < count; symbol++) counts[lengths[symbol]]++;
    begins[0] = 0;
    begins[1] = counts[0];
    for (unsigned bits = 1; bits <= LONGEST_BITS; bits++) {
        left = left * 2 - (int)counts[bits];
        if (left < 0) return 0;
        begins[bits + 1] = begins[bits] + counts[bits];
    }
    int at = (int)counts[0];
    for (int symbol = 0; symbol < count; symbol++) sorted[begins[lengths[symbol]]++] = (uint16_t)symbol;
    if (left) {
        if (!lone || (unsigned)count > counts[0] + counts[1]) return 0;
        for (unsigned slot = 0; slot < 1u << primary; slot++) {
            table[slot] = at < count && !(slot & 1) ? meanings[sorted[at]] : (entry_t){0, INVALID, 0};
            table[slot].bits = 1;
        }
        return 1;
    }
    /* With each bit that codes have more the table doubles, and its new half is as the other one until longer codes come. */
    for (unsigned bits = 1; bits <= primary; bits++) {
        memcpy(table + size, table, size * sizeof *table);
        size *= 2;
        for (unsigned codes = counts[bits]; codes; codes--, at++) {
            table[code] = meanings[sorted[at]];
            table[code].bits = (uint8_t)bits;
            code = next_code(code, bits);
        }
    }
    if (at < count) build_further(table, primary, sorted + at, lengths, meanings, count - at, code, primary + 1);
    return 1;
}

static inline entry_t decoded(const entry_t *table, unsigned primary, input_t *in) {
    entry_t entry = table[in->bits & ((1u << primary) - 1)];
    if (entry.what == FURTHER) entry = table[entry.value + (in->bits >> primary & ((1u << (entry.bits - primary)) - 1))];
    in->bits >>= entry.bits;
    in->count -= entry.bits;
    return entry;
}

/* The bytes of ``size`` that lie ``distance`` back, which may overlap what is written. */
static inline void repeat(uint8_t *to, size_t distance, size_t size) {
    const uint8_t *from = to - distance;
    uint8_t *end = to + size;
    if (distance >= 16)
        do {
            memcpy(to, from, 16);
            to += 16;
            from += 16;
        } while (to < end);
    else
        do *to++ = *from++;
        while (to < end);
}

/* Symbols up to the end of the block. What changes with each of them is kept in local variables. */
static int inflate_block(inflater_t *it, input_t *input, size_t begin, const entry_t *literals, const entry_t *distances) {
    input_t in = *input;
    uint8_t *data = it->out.data;
    size_t size = it->out.size;
    entry_t entry;
    for (;;) {
        if (it->out.room - size < SLACK) {
            it->out.size = size;
            if (size > it->limit || !blob_reserve(&it->out, SLACK + size / 2)) return 0;
            data = it->out.data;
        }
        if (in.missing > 8) return 0;
        refill(&in);
        entry = decoded(literals, PRIMARY, &in);
        if (entry.what == LITERAL) {
            data[size++] = (uint8_t)entry.value;
            /* There are bits for two more literals; what else there may be needs more. */
            entry = decoded(literals, PRIMARY, &in);
            if (entry.what == LITERAL) {
                data[size++] = (uint8_t)entry.value;
                entry = decoded(literals, PRIMARY, &in);
                if (entry.what == LITERAL) {
                    data[size++] = (uint8_t)entry.value;
                    continue;
                }
            }
            refill(&in);
        }
        if (entry.what & (END | INVALID)) break;
        size_t length = entry.value + take(&in, entry.what & EXTRA);
        entry = decoded(distances, DISTANCE_PRIMARY, &in);
        if (entry.what & INVALID) return 0;
        size_t distance = entry.value + take(&in, entry.what & EXTRA);
        if (distance > size - begin) return 0;
        repeat(data + size, distance, length);
        size += length;
    }
    *input = in;
    it->out.size = size;
    return entry.what == END;
}

/* The lengths of literals' and distances' codes as a block says them. */
static int read_lengths(inflater_t *it, input_t *in, uint8_t *lengths, int count) {
    static const uint8_t order[] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};
    uint8_t own[19] = {0};
    int coded = (int)take(in, 4) + 4;
    for (int at = 0; at < coded; at++) {
        refill(in);
        own[order[at]] = (uint8_t)take(in, 3);
    }
    if (!build(it->literals, 7, own, 19, it->of_length, 0)) return 0;
    for (int at = 0; at < count;) {
        refill(in);
        entry_t entry = decoded(it->literals, 7, in);
        if (entry.value < 16) {
            lengths[at++] = (uint8_t)entry.value;
            continue;
        }
        if (entry.value == 16 && !at) return 0;
        uint8_t same = entry.value == 16 ? lengths[at - 1] : 0;
        int times = entry.value == 16 ? 3 + (int)take(in, 2) : entry.value == 17 ? 3 + (int)take(in, 3) : 11 + (int)take(in, 7);
        if (times > count - at) return 0;
        memset(lengths + at, same, (size_t)times);
        at += times;
    }
    return 1;
}

static int read_codes(inflater_t *it, input_t *in) {
    uint8_t lengths[LITERALS + DISTANCES];
    refill(in);
    int literals = (int)take(in, 5) + 257, distances = (int)take(in, 5) + 1;
    if (literals > LITERALS || distances > DISTANCES || !read_lengths(it, in, lengths, literals + distances)) return 0;
    return build(it->literals, PRIMARY, lengths, literals, it->of_literal, 1) &&
           build(it->distances, DISTANCE_PRIMARY, lengths + literals, distances, it->of_distance, 1);
}

/* Bytes that were read ahead are given back; 0 if there were none. */
static int give_back(input_t *in) {
    unsigned whole = in->count >> 3;
    if (in->missing > whole) return 0;
    in->at -= whole - in->missing;
    in->bits = in->count = in->missing = 0;
    return 1;
}

static int copy_block(inflater_t *it, input_t *in) {
    take(in, in->count & 7);
    if (!give_back(in) || in->end - in->at < 4) return 0;
    size_t size = in->at[0] | (size_t)in->at[1] << 8, check = in->at[2] | (size_t)in->at[3] << 8;
    in->at += 4;
    if (size != (check ^ 0xFFFF) || (size_t)(in->end - in->at) < size || it->out.size > it->limit) return 0;
    if (!blob_reserve(&it->out, size + SLACK)) return 0;
    memcpy(it->out.data + it->out.size, in->at, size);
    it->out.size += size;
    in->at += size;
    return 1;
}

static int inflate_all(inflater_t *it, input_t *in) {
    size_t begin = it->out.size;
    for (int last = 0; !last;) {
        refill(in);
        last = (int)take(in, 1);
        unsigned kind = take(in, 2);
        int good = kind == 0   ? copy_block(it, in)
                   : kind == 1 ? inflate_block(it, in, begin, it->fixed_literals, it->fixed_distances)
                   : kind == 2 ? read_codes(it, in) && inflate_block(it, in, begin, it->literals, it->distances)
                               : 0;
        if (!good) return 0;
    }
    return give_back(in);
}

/* Behind a member's header; 0 where it is one that is seldom seen. */
static int read_header(input_t *in) {
    enum { MORE = 4, NAME = 8, COMMENT = 16 };
    const uint8_t *at = in->at;
    if (in->end - at < 18 || at[0] != 0x1F || at[1] != 0x8B || at[2] != 8 || at[3] & ~(1 | MORE | NAME | COMMENT)) return 0;
    int flags = at[3];
    at += 10;
    if (flags & MORE) {
        size_t size = at[0] | (size_t)at[1] << 8;
        at += 2;
        if ((size_t)(in->end - at) < size) return 0;
        at += size;
    }
    for (int text = NAME; text <= COMMENT; text *= 2) {
        if (!(flags & text)) continue;
        at = memchr(at, 0, (size_t)(in->end - at));
        if (at == NULL) return 0;
        at++;
    }
    in->at = at;
    return 1;
}

static uint32_t word_at(const uint8_t *at) { return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24; }

/* All members of a file, appended to ``it->out``; 0 where it is not vouched for, or more would come out than its limit. */
static int gunzip(inflater_t *it, const uint8_t *data, size_t size) {
    input_t in = {data, data + size, 0, 0, 0};
    do {
        size_t begin = it->out.size;
        if (!read_header(&in) || !inflate_all(it, &in) || in.end - in.at < 8 || it->out.size > it->limit) return 0;
        size_t plain = it->out.size - begin;
        if (word_at(in.at + 4) != (uint32_t)plain || word_at(in.at) != ~crc(~0U, it->out.data + begin, plain)) return 0;
        in.at += 8;
    } while (in.at < in.end);
    return 1;
}

static void prepare(inflater_t *it) {
    uint8_t lengths[LITERALS + 2];
    for (int symbol = 0; symbol < LITERALS + 2; symbol++) it->of_literal[symbol] = literal_meaning(symbol);
    for (int symbol = 0; symbol < DISTANCES + 2; symbol++) it->of_distance[symbol] = distance_meaning(symbol);
    for (int symbol = 0; symbol < 19; symbol++) it->of_length[symbol] = (entry_t){(uint16_t)symbol, 0, 0};
    for (int symbol = 0; symbol < LITERALS + 2; symbol++) lengths[symbol] = symbol < 144 ? 8 : symbol < 256 ? 9 : symbol < 280 ? 7 : 8;
    build(it->fixed_literals, PRIMARY, lengths, LITERALS + 2, it->of_literal, 0);
    memset(lengths, 5, DISTANCES + 2);
    build(it->fixed_distances, DISTANCE_PRIMARY, lengths, DISTANCES + 2, it->of_distance, 0);
}

/* Files from row ``row`` on, until what is in them is more than ``most``; behind the last one that was read. */
static Py_ssize_t gunzip_rows(inflater_t *it, const views_t *files, Py_ssize_t row, const Py_ssize_t *limits, view_t *views, uint8_t *bad) {
    Py_ssize_t first = row, most = limits[0], bytes = limits[1], ratio = limits[2];
    for (; row < files->rows; row++) {
        size_t size, begin = it->out.size;
        const uint8_t *limit, *data = views_at(files, row, &size, &limit);
        size_t allowed = (size_t)bytes / (size_t)ratio >= size ? (size_t)ratio * size : (size_t)bytes;
        it->limit = begin + allowed;
        int good = gunzip(it, data, size);
        if (it->out.failed) return -1;
        if (!good || it->out.size > INT32_MAX) {
            bad[row - first] = 1;
            it->out.size = begin;
        } else if (row > first && it->out.size > (size_t)most) {
            it->out.size = begin;
            return row;
        }
        view_set(views + (row - first), it->out.data + begin, it->out.size - begin, 0, begin);
    }
    return row;
}

PyObject *kernel_gunzip(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *views, *buffers, *made = NULL;
    Py_ssize_t start, limits[3], stop = -1;
    views_t files;
    blob_t places = {0}, bad = {0};
    if (!PyArg_ParseTuple(args, "OOnnnn", &views, &buffers, &start, limits, limits + 1, limits + 2)) return NULL;
    if (start < 0 || limits[0] < 0 || limits[1] < 0 || limits[2] < 1) {
        PyErr_SetString(PyExc_ValueError, "limits are positive");
        return NULL;
    }
    if (!views_open(&files, views, buffers)) return NULL;
    Py_ssize_t rows = files.rows > start ? files.rows - start : 0;
    inflater_t *it = calloc(1, sizeof *it);
    crc_prepare();
    if (it != NULL && blob_resize(&places, (size_t)rows * sizeof(view_t) + 1) && blob_resize(&bad, (size_t)rows + 1)) {
        Py_BEGIN_ALLOW_THREADS;
        prepare(it);
        stop = rows && blob_reserve(&it->out, SLACK) ? gunzip_rows(it, &files, start, limits, (view_t *)places.data, bad.data) : rows ? -1 : start;
        Py_END_ALLOW_THREADS;
    }
    views_close(&files);
    if (stop < 0) PyErr_NoMemory();
    else {
        bad.size = (size_t)(stop - start);
        places.size = (size_t)(stop - start) * sizeof(view_t);
        PyObject *marks = blob_take(&bad), *column = taken_pair(&places, &it->out);
        if (marks != NULL && column != NULL) made = Py_BuildValue("nOO", stop, marks, column);
        Py_XDECREF(marks);
        Py_XDECREF(column);
    }
    if (it != NULL) blob_free(&it->out);
    free(it);
    blob_free(&places);
    blob_free(&bad);
    return made;
}

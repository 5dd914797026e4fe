/* DELTA_BINARY_PACKED and DELTA_BYTE_ARRAY as Parquet defines them, in blocks of 128 values and four miniblocks; see
   stream/audit/columns.py, which makes the same bytes. */

#include "kernel.h"

enum { BLOCK = 128, MINIBLOCKS = 4, MINIBLOCK = BLOCK / MINIBLOCKS };

static inline uint8_t *varint(uint8_t *out, uint64_t value) {
    for (; value > 0x7F; value >>= 7) *out++ = (uint8_t)(value | 0x80);
    *out++ = (uint8_t)value;
    return out;
}

static inline uint64_t zigzag(int64_t value) { return (uint64_t)value << 1 ^ (uint64_t)(value >> 63); }

/* A miniblock's values in ``width`` bits each, the first one lowest. */
static uint8_t *pack(uint8_t *out, const uint64_t *values, unsigned width) {
    uint64_t bits = 0;
    unsigned waiting = 0;
    for (int place = 0; place < MINIBLOCK && width; place++) {
        bits |= values[place] << waiting;
        waiting += width;
        if (waiting < 64) continue;
        memcpy(out, &bits, 8);
        out += 8;
        waiting -= 64;
        bits = waiting ? values[place] >> (width - waiting) : 0;
    }
    memcpy(out, &bits, 8);
    return out + waiting / 8;
}

/* Integers of four or eight bytes appended to ``out``; differences wrap around within them. 0 where there is no memory. */
static int delta_pack(blob_t *out, const void *values, size_t count, int wide) {
    const int32_t *narrow = values;
    const int64_t *broad = values;
    if (!blob_reserve(out, 1024 + count * 9)) return 0; /* also for the zeros that fill up the last miniblock */
    uint8_t *at = out->data + out->size;
    at = varint(varint(varint(at, BLOCK), MINIBLOCKS), count);
    at = varint(at, zigzag(!count ? 0 : wide ? broad[0] : narrow[0]));
    for (size_t first = 1; first < count; first += BLOCK) {
        uint64_t deltas[BLOCK];
        size_t size = count - first < BLOCK ? count - first : BLOCK;
        int64_t least = INT64_MAX;
        for (size_t place = 0; place < size; place++) {
            size_t row = first + place;
            int64_t delta = wide ? (int64_t)((uint64_t)broad[row] - (uint64_t)broad[row - 1])
                                 : (int32_t)((uint32_t)narrow[row] - (uint32_t)narrow[row - 1]);
            deltas[place] = (uint64_t)delta;
            if (delta < least) least = delta;
        }
        for (size_t place = 0; place < size; place++) deltas[place] -= (uint64_t)least;
        memset(deltas + size, 0, (BLOCK - size) * sizeof *deltas);
        at = varint(at, zigzag(least));
        uint8_t *widths = at;
        at += MINIBLOCKS;
        for (int mini = 0; mini < MINIBLOCKS; mini++) {
            const uint64_t *own = deltas + mini * MINIBLOCK;
            uint64_t all = 0;
            for (int place = 0; place < MINIBLOCK; place++) all |= own[place];
            widths[mini] = all ? (uint8_t)(64 - __builtin_clzll(all)) : 0;
            at = pack(at, own, widths[mini]);
        }
    }
    out->size = (size_t)(at - out->data);
    return 1;
}

PyObject *kernel_delta_integers(PyObject *module, PyObject *args) {
    (void)module;
    Py_buffer values;
    int width, made;
    blob_t out = {0};
    if (!PyArg_ParseTuple(args, "y*i", &values, &width)) return NULL;
    if ((width != 4 && width != 8) || values.len % width) {
        PyBuffer_Release(&values);
        PyErr_SetString(PyExc_ValueError, "integers have four or eight bytes");
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    made = delta_pack(&out, values.buf, (size_t)(values.len / width), width == 8);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&values);
    PyObject *result = made ? blob_take(&out) : PyErr_NoMemory();
    blob_free(&out);
    return result;
}

static size_t shared(const uint8_t *one, const uint8_t *two, size_t size) {
    size_t place = 0;
    for (uint64_t a, b; place + 8 <= size; place += 8) {
        memcpy(&a, one + place, 8);
        memcpy(&b, two + place, 8);
        if (a != b) return place + (size_t)(__builtin_ctzll(a ^ b) >> 3);
    }
    while (place < size && one[place] == two[place]) place++;
    return place;
}

static int texts_pack(const views_t *texts, blob_t *out) {
    size_t rows = (size_t)texts->rows, before = 0, total = 0;
    int32_t *prefixes = malloc((rows + 1) * 2 * sizeof *prefixes), *rests = prefixes + rows;
    if (prefixes == NULL) return 0;
    const uint8_t *limit, *last = NULL;
    for (size_t row = 0; row < rows; row++) {
        size_t size;
        const uint8_t *text = views_at(texts, (Py_ssize_t)row, &size, &limit);
        size_t prefix = shared(text, last, size < before ? size : before);
        prefixes[row] = (int32_t)prefix;
        rests[row] = (int32_t)(size - prefix);
        total += size - prefix;
        before = size;
        last = text;
    }
    int made = delta_pack(out, prefixes, rows, 0) && delta_pack(out, rests, rows, 0) && blob_reserve(out, total + 1);
    for (size_t row = 0; row < rows && made; row++) {
        size_t size;
        const uint8_t *text = views_at(texts, (Py_ssize_t)row, &size, &limit);
        memcpy(out->data + out->size, text + prefixes[row], (size_t)rests[row]);
        out->size += (size_t)rests[row];
    }
    free(prefixes);
    return made;
}

PyObject *kernel_delta_texts(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *views, *buffers;
    views_t texts;
    blob_t out = {0};
    int made;
    if (!PyArg_ParseTuple(args, "OO", &views, &buffers) || !views_open(&texts, views, buffers)) return NULL;
    Py_BEGIN_ALLOW_THREADS
    made = texts_pack(&texts, &out);
    Py_END_ALLOW_THREADS
    views_close(&texts);
    PyObject *result = made ? blob_take(&out) : PyErr_NoMemory();
    blob_free(&out);
    return result;
}

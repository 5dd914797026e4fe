/* Data pages of Parquet columns; stream/audit/columns.py produces the same bytes. */

#include "delta.h"

enum { INTEGERS, TEXTS, CODES };
enum { NULL_INDEX = 0xFFFF };

/* A column: its values, and a validity bitmap if any row is null. */
typedef struct {
    int form, width, is_signed;
    Py_ssize_t rows, offset; /* of the first row in ``validity``, in bits */
    Py_buffer validity, values;
    views_t texts;     /* without nulls */
    Py_buffer indices; /* by code: the index of its word, or NULL_INDEX */
    size_t words;
    blob_t page, bits, widened, dense; /* ``bits``: the bitmap from bit 0 on */
    size_t valid;                      /* the number of rows that are not null */
    int64_t least, greatest;
    size_t suffixes_at; /* in ``page``, of texts */
} chunk_t;

static int bitmap_make(chunk_t *chunk) {
    const uint8_t *from = (const uint8_t *)chunk->validity.buf + chunk->offset / 8;
    size_t rows = (size_t)chunk->rows, size = (rows + 7) / 8, shift = (size_t)chunk->offset % 8, last = (shift + rows + 7) / 8;
    chunk->valid = rows;
    if (chunk->validity.obj == NULL) return 1;
    if (!blob_resize(&chunk->bits, size + 8)) return 0;
    uint8_t *bits = chunk->bits.data;
    for (size_t byte = 0; byte < size; byte++)
        bits[byte] = (uint8_t)(from[byte] >> shift | (shift && byte + 1 < last ? (unsigned)from[byte + 1] << (8 - shift) : 0));
    if (rows % 8) bits[size - 1] &= (uint8_t)((1 << rows % 8) - 1);
    chunk->valid = 0;
    for (size_t byte = 0; byte < size; byte++) chunk->valid += (size_t)__builtin_popcount(bits[byte]);
    return 1;
}

/* Writes the definition levels: their length, then one bit per row, or one run if all are equal. */
static int levels_put(chunk_t *chunk) {
    size_t rows = (size_t)chunk->rows, size = (rows + 7) / 8;
    if (!blob_reserve(&chunk->page, size + 32)) return 0;
    uint8_t *begin = chunk->page.data + 4, *at;
    if (chunk->valid == rows || !chunk->valid) {
        at = varint(begin, (uint64_t)rows << 1);
        *at++ = chunk->valid > 0;
    } else {
        at = varint(begin, (uint64_t)size << 1 | 1);
        memcpy(at, chunk->bits.data, size);
        at += size;
    }
    uint32_t length = (uint32_t)(at - begin);
    memcpy(chunk->page.data, &length, 4);
    chunk->page.size = 4 + length;
    return 1;
}

/* Copies the integers that are not null, without gaps. */
#define DENSE(kind)                                                                          \
    static void dense_##kind(const uint8_t *bits, const void *from, size_t rows, void *to) { \
        const kind *values = from;                                                           \
        kind *out = to;                                                                      \
        for (size_t row = 0; row < rows; row++) {                                            \
            *out = values[row];                                                              \
            out += bits[row >> 3] >> (row & 7) & 1;                                          \
        }                                                                                    \
    }

DENSE(uint32_t)
DENSE(uint64_t)

/* The integers to pack: those that are not null, in at least four bytes each; NULL if memory ran out. */
static const void *integers_dense(chunk_t *chunk) {
    size_t rows = (size_t)chunk->rows, width = chunk->width < 4 ? 4 : (size_t)chunk->width;
    const void *all = chunk->values.buf;
    if (chunk->width < 4) {
        if (!blob_resize(&chunk->widened, rows * width)) return NULL;
        const uint16_t *values = all;
        uint32_t *widened = (uint32_t *)(void *)chunk->widened.data;
        for (size_t row = 0; row < rows; row++) widened[row] = values[row];
        all = widened;
    }
    if (chunk->valid == rows) return all;
    if (!blob_reserve(&chunk->dense, (rows + 1) * width)) return NULL;
    if (width == 8) dense_uint64_t(chunk->bits.data, all, rows, chunk->dense.data);
    else dense_uint32_t(chunk->bits.data, all, rows, chunk->dense.data);
    return chunk->dense.data;
}

#define EXTREMES(kind)                                                  \
    do {                                                                \
        const kind *values = all;                                       \
        kind least = values[0], greatest = values[0];                   \
        for (size_t row = 1; row < count; row++) {                      \
            least = values[row] < least ? values[row] : least;          \
            greatest = values[row] > greatest ? values[row] : greatest; \
        }                                                               \
        chunk->least = (int64_t)least;                                  \
        chunk->greatest = (int64_t)greatest;                            \
    } while (0)

static int integers_put(chunk_t *chunk, int quick) {
    const void *all = integers_dense(chunk);
    size_t count = chunk->valid;
    if (all == NULL) return 0;
    if (chunk->width == 8) EXTREMES(int64_t);
    else if (chunk->is_signed) EXTREMES(int32_t);
    else EXTREMES(uint32_t);
    return delta_pack(&chunk->page, all, count, chunk->width == 8, quick);
}

/* Writes the indices of words in 1, 2, 4, 8 or 16 bits each, without gaps for nulls. */
static int indices_put(chunk_t *chunk, const uint16_t *indices) {
    const uint16_t *codes = chunk->values.buf;
    unsigned width = chunk->words <= 2 ? 1 : chunk->words <= 4 ? 2 : chunk->words <= 16 ? 4 : chunk->words <= 256 ? 8 : 16;
    size_t groups = (chunk->valid + 7) / 8;
    if (!blob_reserve(&chunk->page, groups * width + 64)) return 0;
    uint8_t *at = chunk->page.data + chunk->page.size;
    *at++ = (uint8_t)width;
    if (chunk->words == 1) {
        at = varint(at, (uint64_t)chunk->valid << 1);
        *at++ = 0;
    } else {
        at = varint(at, (uint64_t)groups << 1 | 1);
        uint8_t *end = at + groups * width;
        uint64_t bits = 0;
        unsigned waiting = 0;
        for (Py_ssize_t row = 0; row < chunk->rows; row++) {
            uint64_t index = indices[codes[row]];
            int is_valid = index != NULL_INDEX;
            bits |= (is_valid ? index : 0) << waiting;
            waiting += is_valid ? width : 0;
            if (waiting < 64) continue;
            memcpy(at, &bits, 8);
            at += 8;
            waiting = 0;
            bits = 0;
        }
        memset(at, 0, (size_t)(end - at)); /* padding of the last group */
        memcpy(at, &bits, 8);
        at = end;
    }
    chunk->page.size = (size_t)(at - chunk->page.data);
    return 1;
}

/* Makes the bitmap of rows that have a word. */
static int codes_bitmap_make(chunk_t *chunk, const uint16_t *indices) {
    const uint16_t *codes = chunk->values.buf;
    size_t rows = (size_t)chunk->rows;
    if (!blob_resize(&chunk->bits, rows / 8 + 9)) return 0;
    chunk->valid = 0;
    for (size_t row = 0; row < rows; row += 8) {
        unsigned byte = 0;
        for (size_t bit = 0; bit < 8 && row + bit < rows; bit++) byte |= (unsigned)(indices[codes[row + bit]] != NULL_INDEX) << bit;
        chunk->bits.data[row / 8] = (uint8_t)byte;
        chunk->valid += (size_t)__builtin_popcount(byte);
    }
    return 1;
}

enum { NO_MEMORY, MADE, MISFIT };

static int page_make(chunk_t *chunk, int quick) {
    const uint16_t *indices = chunk->indices.buf;
    if (!(chunk->form == CODES ? codes_bitmap_make(chunk, indices) : bitmap_make(chunk))) return NO_MEMORY;
    if (chunk->form == TEXTS && (size_t)chunk->texts.rows != chunk->valid) return MISFIT;
    if (!levels_put(chunk)) return NO_MEMORY;
    if (!chunk->valid) return MADE;
    if (chunk->form == INTEGERS) return integers_put(chunk, quick);
    return chunk->form == CODES ? indices_put(chunk, indices) : texts_pack(&chunk->texts, &chunk->page, &chunk->suffixes_at, quick);
}

static void chunk_close(chunk_t *chunk) {
    if (chunk->validity.obj != NULL) PyBuffer_Release(&chunk->validity);
    if (chunk->values.obj != NULL) PyBuffer_Release(&chunk->values);
    if (chunk->indices.obj != NULL) PyBuffer_Release(&chunk->indices);
    views_close(&chunk->texts);
    blob_free(&chunk->page);
    blob_free(&chunk->bits);
    blob_free(&chunk->widened);
    blob_free(&chunk->dense);
}

static int bitmap_open(chunk_t *chunk, PyObject *validity) {
    if (validity == Py_None) return 1;
    if (PyObject_GetBuffer(validity, &chunk->validity, PyBUF_SIMPLE)) return 0;
    if (chunk->rows >= 0 && chunk->offset >= 0 && chunk->offset + chunk->rows <= 8 * chunk->validity.len) return 1;
    PyErr_Format(PyExc_ValueError, "%zd bytes are too few for %zd bits at offset %zd", chunk->validity.len, chunk->rows, chunk->offset);
    return 0;
}

static int codes_open(chunk_t *chunk, PyObject *codes, PyObject *indices) {
    if (PyObject_GetBuffer(codes, &chunk->values, PyBUF_SIMPLE) || PyObject_GetBuffer(indices, &chunk->indices, PyBUF_SIMPLE)) return 0;
    chunk->rows = chunk->values.len / 2;
    const uint16_t *all = chunk->values.buf, *words = chunk->indices.buf;
    unsigned most = 0;
    for (Py_ssize_t row = 0; row < chunk->rows; row++) most = all[row] > most ? all[row] : most;
    for (Py_ssize_t word = 0; word < chunk->indices.len / 2; word++)
        if (words[word] != NULL_INDEX && words[word] >= chunk->words) chunk->words = (size_t)words[word] + 1;
    if (!chunk->rows || most < chunk->indices.len / 2) return 1;
    PyErr_Format(PyExc_ValueError, "code %u is out of range: there are %zd", most, chunk->indices.len / 2);
    return 0;
}

static int integers_open(chunk_t *chunk, PyObject *values) {
    if (PyObject_GetBuffer(values, &chunk->values, PyBUF_SIMPLE)) return 0;
    if ((chunk->width == 2 || chunk->width == 4 || chunk->width == 8) && chunk->values.len == chunk->rows * chunk->width) return 1;
    PyErr_Format(PyExc_ValueError, "%zd rows of integers of 2, 4 or 8 bytes cannot take %zd bytes", chunk->rows, chunk->values.len);
    return 0;
}

/* Opens a column (form, rows, validity, offset, ...) as in the function's docstring; 0 and an exception if it is invalid. */
static int chunk_open(chunk_t *chunk, PyObject *spec) {
    PyObject *validity, *one, *two = NULL;
    memset(chunk, 0, sizeof *chunk);
    if (!PyTuple_Check(spec) || PyTuple_Size(spec) < 1) {
        PyErr_SetString(PyExc_TypeError, "a column must be a tuple");
        return 0;
    }
    chunk->form = (int)PyLong_AsLong(PyTuple_GetItem(spec, 0));
    switch (chunk->form) {
    case INTEGERS:
        return PyArg_ParseTuple(spec, "inOnOip", &chunk->form, &chunk->rows, &validity, &chunk->offset, &one, &chunk->width, &chunk->is_signed) &&
               bitmap_open(chunk, validity) && integers_open(chunk, one);
    case TEXTS:
        return PyArg_ParseTuple(spec, "inOnOO", &chunk->form, &chunk->rows, &validity, &chunk->offset, &one, &two) &&
               bitmap_open(chunk, validity) && views_open(&chunk->texts, one, two);
    case CODES:
        return PyArg_ParseTuple(spec, "iOO", &chunk->form, &one, &two) && codes_open(chunk, one, two);
    default:
        if (!PyErr_Occurred()) PyErr_Format(PyExc_ValueError, "a column's form must be 0, 1 or 2, not %d", chunk->form);
        return 0;
    }
}

static PyObject *chunk_result(chunk_t *chunk) {
    PyObject *page = blob_take(&chunk->page);
    if (page == NULL) return NULL;
    Py_ssize_t nulls = chunk->rows - (Py_ssize_t)chunk->valid;
    return Py_BuildValue("NnLLn", page, nulls, (long long)chunk->least, (long long)chunk->greatest, (Py_ssize_t)chunk->suffixes_at);
}

PyObject *kernel_chunks(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *specs;
    int quick;
    if (!PyArg_ParseTuple(args, "O!p", &PyTuple_Type, &specs, &quick)) return NULL;
    Py_ssize_t count = PyTuple_Size(specs), opened = 0;
    chunk_t *chunks = calloc((size_t)count + 1, sizeof *chunks);
    PyObject *result = NULL;
    int outcome = MADE;
    if (chunks == NULL) return PyErr_NoMemory();
    while (opened < count && chunk_open(chunks + opened, PyTuple_GetItem(specs, opened))) opened++;
    if (opened < count) {
        chunk_close(chunks + opened);
        goto end;
    }
    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t index = 0; index < count && outcome == MADE; index++) outcome = page_make(chunks + index, quick);
    Py_END_ALLOW_THREADS
    if (outcome != MADE) {
        if (outcome == NO_MEMORY) PyErr_NoMemory();
        else PyErr_SetString(PyExc_ValueError, "a column of texts must have as many texts as set bits in its bitmap");
        goto end;
    }
    result = PyTuple_New(count);
    for (Py_ssize_t index = 0; index < count && result != NULL; index++) {
        PyObject *page = chunk_result(chunks + index);
        if (page == NULL || PyTuple_SetItem(result, index, page)) Py_CLEAR(result);
    }
end:
    while (opened) chunk_close(chunks + --opened);
    free(chunks);
    return result;
}

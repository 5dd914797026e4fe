/* Shared by the files of the kernel: growing memory that Python can take over, Arrow's views, and readers of JSON strings and numbers.

   No function here raises because of the data. It returns a result that is certain, or reports that it has none; then the caller uses the
   Python code. So strictness costs time but never changes a result. All work is done without the GIL. */

#ifndef STREAM_KERNEL_H
#define STREAM_KERNEL_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Memory that grows; empty if all fields are zero. ``failed`` stays set once memory ran out. */
typedef struct {
    uint8_t *data;
    size_t size, room;
    int failed;
} blob_t;

/* Makes room for ``more`` bytes after ``size``; 0 if memory ran out. */
int blob_reserve(blob_t *blob, size_t more);
/* Sets the size; new bytes are zero. 0 if memory ran out. */
int blob_resize(blob_t *blob, size_t size);
void blob_free(blob_t *blob);
/* Appends; 0 if memory ran out. */
static inline int blob_put(blob_t *blob, const void *bytes, size_t size) {
    if (!blob_reserve(blob, size)) return 0;
    memcpy(blob->data + blob->size, bytes, size);
    blob->size += size;
    return 1;
}
/* Hands the memory, ``size`` bytes of it, to a Python object with the buffer protocol; NULL and an exception if memory ran out. */
PyObject *blob_take(blob_t *blob);
/* An object with the buffer protocol for ``size`` bytes at ``data``, which last as long as ``owner``. */
PyObject *memory_lent(PyObject *owner, const void *data, Py_ssize_t size);
/* Hands both over, as a tuple. */
PyObject *taken_pair(blob_t *first, blob_t *second);

/* An element of Arrow's BinaryView and Utf8View: up to INLINE bytes are stored in it, longer values in a buffer. */
enum { INLINE = 12 };
typedef struct {
    uint32_t size;
    uint8_t prefix[4];
    uint32_t buffer;
    uint32_t offset;
} view_t;

static inline void view_set(view_t *view, const uint8_t *text, size_t size, uint32_t buffer, size_t offset) {
    uint8_t *start = (uint8_t *)view + sizeof view->size;
    view->size = (uint32_t)size;
    if (size <= INLINE) {
        memset(start, 0, INLINE);
        memcpy(start, text, size);
    } else {
        memcpy(start, text, sizeof view->prefix);
        view->buffer = buffer;
        view->offset = (uint32_t)offset;
    }
}

/* A column of views from Python, and the buffers that the views refer to. */
typedef struct {
    Py_buffer views;
    Py_buffer *buffers;
    Py_ssize_t count;
    const view_t *first;
    Py_ssize_t rows;
} views_t;

/* Opens an object with 16 bytes per row and a tuple of buffers; 0 and an exception if they are invalid or a view points outside. */
int views_open(views_t *column, PyObject *views, PyObject *buffers);
void views_close(views_t *column);

static inline const uint8_t *views_at(const views_t *column, Py_ssize_t row, size_t *size, const uint8_t **limit) {
    const view_t *view = column->first + row;
    *size = view->size;
    if (view->size <= INLINE) {
        *limit = view->prefix + INLINE;
        return view->prefix;
    }
    const Py_buffer *buffer = column->buffers + view->buffer;
    *limit = (const uint8_t *)buffer->buf + buffer->len;
    return (const uint8_t *)buffer->buf + view->offset;
}

/* A view of ``size`` bytes at ``from`` in the text of ``row``, which begins at ``text``; only short values are copied. */
static inline void view_part(const views_t *column, Py_ssize_t row, const uint8_t *text, const uint8_t *from, size_t size, view_t *view) {
    const view_t *whole = column->first + row;
    view_set(view, from, size, whole->buffer, size > INLINE ? whole->offset + (size_t)(from - text) : 0);
}

/* A JSON text: the current position, the end of the text, and the end of the memory, which may come later. */
typedef struct {
    const uint8_t *at, *end, *limit;
} text_t;

/* A JSON string, after its opening quote. */
typedef struct {
    const uint8_t *begin, *close; /* between the quotes */
    int escaped;                  /* holds a backslash */
} string_t;

/* Reads up to and including the closing quote; 0 unless the string is valid JSON and valid UTF-8. Surrogates must come in pairs. */
int read_string(text_t *text, string_t *string);
/* Whether the bytes are UTF-8 as Python reads it: without surrogates and overlong forms. */
int is_utf8(const uint8_t *at, const uint8_t *end);
/* Appends an escaped string to ``out``, unescaped; 0 if memory ran out. */
int unescape(const string_t *string, blob_t *out);
/* Appends an escaped string to ``out``, with quotes and only the necessary escapes; 0 if memory ran out. */
int escape_again(const string_t *string, blob_t *out);
/* Skips a JSON value on which all readers agree; 0 for any other, or for more than MAX_DEPTH levels. */
int skip_value(text_t *text, int depth);
enum { MAX_DEPTH = 100 };

/* A number as JSON writes it: ``negative ? -digits * 10**exponent : ...``. */
typedef struct {
    const uint8_t *begin, *end;
    uint64_t digits;
    int negative, exponent;
    int whole; /* neither point nor exponent */
    int exact; /* ``digits`` and ``exponent`` represent it completely */
} number_t;

/* Reads a number; 0 if there is none. */
int read_number(text_t *text, number_t *number);
/* The nearest double, as every reader rounds it; 0 if that is infinite or underflows. */
int number_real(const number_t *number, double *real);

/* Whether both begin with the same ``size`` bytes; faster than memcmp for the few bytes of a name. */
static inline int same_bytes(const void *one, const void *other, size_t size) {
    const uint8_t *left = one, *right = other;
    uint64_t words[2];
    if (size < sizeof *words) {
        while (size && left[size - 1] == right[size - 1]) size--;
        return !size;
    }
    for (size_t at = 0; at < size; at += sizeof *words) {
        /* The last word overlaps the one before it. */
        size_t from = size - at < sizeof *words ? size - sizeof *words : at;
        memcpy(words, left + from, sizeof *words);
        memcpy(words + 1, right + from, sizeof *words);
        if (words[0] != words[1]) return 0;
    }
    return 1;
}

static inline void blanks(text_t *text) {
    while (text->at < text->end && (*text->at == ' ' || *text->at == '\t')) text->at++;
}

static inline int literal(text_t *text, const char *word, size_t size) {
    if ((size_t)(text->end - text->at) < size || memcmp(text->at, word, size)) return 0;
    text->at += size;
    return 1;
}

/* Decodes ``size`` characters of base64 to ``out``, which needs room for 32 more bytes; -1 unless they are canonical. */
Py_ssize_t base64_decode(const uint8_t *text, size_t size, uint8_t *out);

/* Functions of the module; see their docstrings in module.c. */
PyObject *kernel_page(PyObject *module, PyObject *body);
PyObject *kernel_plan(PyObject *module, PyObject *spec);
PyObject *kernel_decode(PyObject *module, PyObject *const *args, Py_ssize_t count);
PyObject *kernel_avro_plan(PyObject *module, PyObject *spec);
PyObject *kernel_avro(PyObject *module, PyObject *args);
PyObject *kernel_protobuf_plan(PyObject *module, PyObject *spec);
PyObject *kernel_protobuf(PyObject *module, PyObject *args);
PyObject *kernel_gzip(PyObject *module, PyObject *args);
PyObject *kernel_zstd(PyObject *module, PyObject *args);
PyObject *kernel_chunks(PyObject *module, PyObject *args);
PyObject *kernel_digits(PyObject *module, PyObject *args);
PyObject *kernel_few(PyObject *module, PyObject *columns);
PyObject *kernel_exported(PyObject *module, PyObject *column);
PyObject *kernel_lent(PyObject *module, PyObject *columns);
PyObject *kernel_same(PyObject *module, PyObject *args);
PyObject *kernel_counted(PyObject *module, PyObject *args);
PyObject *kernel_placed(PyObject *module, PyObject *args);
PyObject *kernel_places(PyObject *module, PyObject *args);
PyObject *kernel_varints(PyObject *module, PyObject *args);
PyObject *kernel_find(PyObject *module, PyObject *args);
PyObject *kernel_characters(PyObject *module, PyObject *args);
PyObject *kernel_record_ids(PyObject *module, PyObject *args);
PyObject *kernel_set_hash(PyObject *module, PyObject *args);
PyObject *kernel_keyed_hash(PyObject *module, PyObject *args);
PyObject *kernel_keep_last(PyObject *module, PyObject *args);
PyObject *kernel_separated(PyObject *module, PyObject *args);
PyObject *kernel_cut(PyObject *module, PyObject *args);
PyObject *kernel_urls(PyObject *module, PyObject *args);
PyObject *kernel_addresses(PyObject *module, PyObject *args);

#endif

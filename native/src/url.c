/* URLs to their parts, as the expression in stream/transform/urls.py splits them. */

#include "kernel.h"

enum { SCHEME, USER, HOST, PORT, PATH, QUERY, FRAGMENT, PARTS, MOST_PORT = 65535 };

typedef struct {
    const uint8_t *begin, *end; /* NULL if there is no such part */
} part_t;

typedef struct {
    blob_t values, validity;
    Py_ssize_t nulls;
    int wanted;
} column_t;

typedef struct {
    column_t columns[PARTS];
    blob_t bad, side;
    Py_ssize_t wrong;
    uint32_t buffer; /* the index of ``side`` among the buffers of the views */
} urls_t;

/* Whether all bytes are printable ASCII and not blank. */
static int is_visible(const uint8_t *text, size_t size) {
    unsigned others = 0;
    for (size_t at = 0; at < size; at++) others |= (uint8_t)(text[at] - '!') > '~' - '!';
    return !others;
}

static inline int is_letter(uint8_t byte) { return (uint8_t)((byte | 32) - 'a') < 26; }
static inline int is_digit(uint8_t byte) { return (uint8_t)(byte - '0') < 10; }

static int is_bracketed(const uint8_t *at, const uint8_t *end) {
    if (end - at < 3 || end[-1] != ']') return 0;
    for (at++; at < end - 1; at++)
        if (!is_digit(*at) && (uint8_t)((*at | 32) - 'a') > 5 && *at != ':' && *at != '.') return 0;
    return 1;
}

/* Finds user, host and port; the port is 0 to 65535, or negative if there is none. 0 if that is not certain. */
static int split_authority(part_t *parts, int *port, const uint8_t *at, const uint8_t *end) {
    const uint8_t *sign = memchr(at, '@', (size_t)(end - at)), *host_end = end;
    if (sign != NULL) {
        parts[USER] = (part_t){at, sign};
        at = sign + 1;
        if (memchr(at, '@', (size_t)(end - at))) return 0;
    }
    if (at < end && *at == '[') {
        host_end = memchr(at, ']', (size_t)(end - at));
        if (host_end == NULL || !is_bracketed(at, ++host_end) || (host_end < end && *host_end != ':')) return 0;
    } else {
        const uint8_t *colon = memchr(at, ':', (size_t)(end - at));
        if (colon != NULL) host_end = colon;
    }
    parts[HOST] = (part_t){at, host_end};
    if (host_end == end) return 1;
    int value = 0;
    if (end - host_end > 6) return 0;
    for (at = host_end + 1; at < end; at++) {
        if (!is_digit(*at)) return 0;
        value = value * 10 + (*at - '0');
    }
    if (end - host_end > 1) *port = value;
    return value <= MOST_PORT;
}

/* Finds the parts of an absolute URL with an authority, or of a path; 0 for anything else. */
static int split_url(part_t *parts, int *port, const uint8_t *text, size_t size) {
    const uint8_t *at = text, *end = text + size, *stop;
    *port = -1;
    if (!size || !is_visible(text, size)) return 0;
    if (*at == '/') {
        if (size > 1 && at[1] == '/') return 0;
    } else {
        if (!is_letter(*at)) return 0;
        while (at < end && (is_letter(*at) || is_digit(*at) || *at == '+' || *at == '.' || *at == '-')) at++;
        if (end - at < 3 || at - text > INLINE || memcmp(at, "://", 3)) return 0;
        parts[SCHEME] = (part_t){text, at};
        at += 3;
        for (stop = at; stop < end && *stop != '/' && *stop != '?' && *stop != '#';) stop++;
        if (!split_authority(parts, port, at, stop)) return 0;
        at = stop;
    }
    for (stop = at; stop < end && *stop != '?' && *stop != '#';) stop++;
    parts[PATH] = (part_t){at, stop};
    if (stop < end && *stop == '?') {
        at = stop + 1;
        stop = memchr(at, '#', (size_t)(end - at));
        if (stop == NULL) stop = end;
        parts[QUERY] = (part_t){at, stop};
    }
    if (stop < end) parts[FRAGMENT] = (part_t){stop + 1, end};
    return 1;
}

/* Writes a part in lower case; it is stored in ``side`` if it is long and had upper-case letters. */
static int put_small(urls_t *urls, const views_t *texts, Py_ssize_t row, const uint8_t *text, part_t part, view_t *view) {
    size_t size = (size_t)(part.end - part.begin), begin = urls->side.size;
    const uint8_t *at = part.begin;
    while (at < part.end && (uint8_t)(*at - 'A') >= 26) at++;
    if (at == part.end) {
        view_part(texts, row, text, part.begin, size, view);
        return 1;
    }
    if (!blob_reserve(&urls->side, size)) return 0;
    for (size_t place = 0; place < size; place++) {
        uint8_t byte = part.begin[place];
        urls->side.data[begin + place] = (uint8_t)(byte - 'A') < 26 ? byte | 32 : byte;
    }
    view_set(view, urls->side.data + begin, size, urls->buffer, begin);
    if (size > INLINE) urls->side.size += size;
    return 1;
}

static int put_row(urls_t *urls, const views_t *texts, Py_ssize_t row, const uint8_t *text, const part_t *parts, int port) {
    for (int which = 0; which < PARTS; which++) {
        column_t *column = urls->columns + which;
        if (!column->wanted) continue;
        if (which == PORT ? port < 0 : parts[which].begin == NULL) {
            column->nulls++;
            continue;
        }
        column->validity.data[row >> 3] |= (uint8_t)(1 << (row & 7));
        if (which == PORT) {
            uint16_t value = (uint16_t)port;
            memcpy(column->values.data + 2 * row, &value, sizeof value);
            continue;
        }
        view_t *view = (view_t *)column->values.data + row;
        if (which != SCHEME && which != HOST) view_part(texts, row, text, parts[which].begin, (size_t)(parts[which].end - parts[which].begin), view);
        else if (!put_small(urls, texts, row, text, parts[which], view)) return 0;
    }
    return 1;
}

static int split_all(urls_t *urls, const views_t *texts) {
    size_t rows = (size_t)texts->rows;
    if (!blob_resize(&urls->bad, rows)) return 0;
    for (int which = 0; which < PARTS; which++) {
        column_t *column = urls->columns + which;
        size_t width = which == PORT ? sizeof(uint16_t) : sizeof(view_t);
        if (column->wanted && (!blob_resize(&column->values, rows * width) || !blob_resize(&column->validity, rows / 8 + 1))) return 0;
    }
    for (Py_ssize_t row = 0; row < texts->rows; row++) {
        part_t parts[PARTS] = {{NULL, NULL}};
        int port;
        size_t size;
        const uint8_t *limit, *text = views_at(texts, row, &size, &limit);
        if (split_url(parts, &port, text, size) && urls->side.size <= INT32_MAX) {
            if (!put_row(urls, texts, row, text, parts, port)) return 0;
            continue;
        }
        urls->bad.data[row] = 1;
        urls->wrong++;
        for (int which = 0; which < PARTS; which++) urls->columns[which].nulls += urls->columns[which].wanted;
    }
    return 1;
}

static PyObject *all_columns(urls_t *urls) {
    PyObject *columns = PyTuple_New(PARTS);
    for (int which = 0; columns != NULL && which < PARTS; which++) {
        column_t *column = urls->columns + which;
        PyObject *pair = column->wanted ? taken_pair(&column->validity, &column->values) : Py_NewRef(Py_None);
        PyObject *done = pair == NULL ? NULL : Py_BuildValue("nN", column->nulls, pair);
        if (done == NULL) Py_CLEAR(columns);
        else PyTuple_SetItem(columns, which, done);
    }
    return columns;
}

static PyObject *all_results(urls_t *urls) {
    PyObject *columns = all_columns(urls), *rest = columns == NULL ? NULL : taken_pair(&urls->bad, &urls->side);
    PyObject *result = rest == NULL ? NULL : Py_BuildValue("OOnO", PyTuple_GetItem(rest, 0), PyTuple_GetItem(rest, 1), urls->wrong, columns);
    Py_XDECREF(columns);
    Py_XDECREF(rest);
    return result;
}

PyObject *kernel_urls(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *views, *buffers, *result = NULL;
    Py_buffer wanted;
    views_t texts;
    urls_t urls = {0};
    int made;
    if (!PyArg_ParseTuple(args, "OOy*", &views, &buffers, &wanted)) return NULL;
    if (wanted.len != PARTS) {
        PyErr_Format(PyExc_ValueError, "the mask of wanted parts must have %d bytes", PARTS);
    } else if (views_open(&texts, views, buffers)) {
        for (int which = 0; which < PARTS; which++) urls.columns[which].wanted = ((const uint8_t *)wanted.buf)[which] != 0;
        urls.buffer = (uint32_t)texts.count;
        Py_BEGIN_ALLOW_THREADS
        made = split_all(&urls, &texts);
        Py_END_ALLOW_THREADS
        result = made ? all_results(&urls) : PyErr_NoMemory();
        views_close(&texts);
    }
    for (int which = 0; which < PARTS; which++) {
        blob_free(&urls.columns[which].values);
        blob_free(&urls.columns[which].validity);
    }
    blob_free(&urls.bad);
    blob_free(&urls.side);
    PyBuffer_Release(&wanted);
    return result;
}

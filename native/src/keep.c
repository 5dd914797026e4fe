/* Hides all but the last characters of texts. */

#include "kernel.h"

enum { CHARACTERS = 0x110000, STAR = '*' };

/* The size of the character at ``at``, and its code point. */
static inline size_t character(const uint8_t *at, const uint8_t *end, uint32_t *code) {
    size_t size = *at < 0x80 ? 1 : *at < 0xE0 ? 2 : *at < 0xF0 ? 3 : 4;
    *code = *at;
    if (size == 1 || (size_t)(end - at) < size) return 1;
    *code &= 0x7Fu >> size;
    for (size_t place = 1; place < size; place++) *code = *code << 6 | (at[place] & 0x3F);
    return size;
}

static inline int hides(const uint8_t *hidden, uint32_t code) { return code < CHARACTERS && hidden[code]; }

/* Where the last ``keep`` of the characters that may be hidden begin; ``text`` if there are no more than ``keep``. */
static const uint8_t *kept_from(const uint8_t *text, const uint8_t *end, Py_ssize_t keep, const uint8_t *hidden) {
    const uint8_t *at = end;
    uint32_t code;
    while (at > text && keep) {
        do at--;
        while (at > text && (*at & 0xC0) == 0x80);
        character(at, end, &code);
        keep -= hides(hidden, code);
    }
    return at;
}

/* Copies ``text`` up to ``end`` to ``to`` with stars, and counts them in ``stars``. Never writes more than it reads. */
static uint8_t *with_stars(const uint8_t *text, const uint8_t *end, const uint8_t *hidden, uint8_t *to, size_t *stars) {
    while (text < end) {
        uint32_t code;
        size_t size = character(text, end, &code);
        if (hides(hidden, code)) {
            *to++ = STAR;
            ++*stars;
        } else
            for (size_t place = 0; place < size; place++) *to++ = text[place];
        text += size;
    }
    return to;
}

static int keep_all(const views_t *texts, Py_ssize_t keep, const uint8_t *hidden, blob_t *views, blob_t *data) {
    if (!blob_resize(views, (size_t)texts->rows * sizeof(view_t))) return 0;
    for (Py_ssize_t row = 0; row < texts->rows; row++) {
        size_t size, stars = 0, begin = data->size;
        const uint8_t *limit, *text = views_at(texts, row, &size, &limit), *end = text + size, *from = kept_from(text, end, keep, hidden);
        if (!blob_reserve(data, size + INLINE)) return 0;
        uint8_t *to = with_stars(text, from, hidden, data->data + begin, &stars);
        if (!stars) to = with_stars(text, from = end, hidden, data->data + begin, &stars);
        memcpy(to, from, (size_t)(end - from));
        size = (size_t)(to - (data->data + begin)) + (size_t)(end - from);
        view_set((view_t *)views->data + row, data->data + begin, size, 0, begin);
        if (size > INLINE) data->size += size;
    }
    return 1;
}

PyObject *kernel_keep_last(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *views, *buffers, *result = NULL;
    Py_buffer hidden;
    Py_ssize_t keep;
    views_t texts;
    blob_t out = {0}, data = {0};
    int made;
    if (!PyArg_ParseTuple(args, "OOny*", &views, &buffers, &keep, &hidden)) return NULL;
    if (hidden.len != CHARACTERS || keep < 1) {
        PyErr_SetString(PyExc_ValueError, "at least one character must be kept, and the mask must have one byte per code point");
    } else if (views_open(&texts, views, buffers)) {
        Py_BEGIN_ALLOW_THREADS
        made = keep_all(&texts, keep, hidden.buf, &out, &data);
        Py_END_ALLOW_THREADS
        if (!made) result = PyErr_NoMemory();
        else result = data.size > INT32_MAX ? Py_NewRef(Py_None) : taken_pair(&out, &data);
        views_close(&texts);
    }
    blob_free(&out);
    blob_free(&data);
    PyBuffer_Release(&hidden);
    return result;
}

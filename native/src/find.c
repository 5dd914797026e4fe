/* Which payloads hold a word. */

#include "kernel.h"

typedef uint8_t lane_t __attribute__((vector_size(16)));

enum { LANE = sizeof(lane_t), STEP = 4 * LANE, SAMPLE = 4, SAMPLE_BYTES = 2048 };

static inline lane_t lane(const uint8_t *text) {
    lane_t value;
    memcpy(&value, text, LANE);
    return value;
}

static inline lane_t pair(const uint8_t *text, lane_t one, lane_t two) { return (lane_t)(lane(text) == one) & (lane_t)(lane(text + 1) == two); }

static inline int any(lane_t value) {
    uint64_t halves[2];
    memcpy(halves, &value, LANE);
    return (halves[0] | halves[1]) != 0;
}

static int stands_in(const uint8_t *text, size_t places, const uint8_t *word, size_t size) {
    for (const uint8_t *at = text, *end = text + places; (at = memchr(at, word[0], (size_t)(end - at))) != NULL; at++)
        if (!memcmp(at, word, size)) return 1;
    return 0;
}

/* Where in the word two bytes stand that seldom stand together in the first of the texts: they say where it is worth looking. */
static size_t rare_pair(const views_t *texts, const uint8_t *word, size_t length) {
    size_t rarest = 0, least = SIZE_MAX;
    for (size_t place = 0; place + 1 < length; place++) {
        size_t count = 0;
        for (Py_ssize_t row = 0; row < texts->rows && row < SAMPLE; row++) {
            size_t size;
            const uint8_t *limit, *text = views_at(texts, row, &size, &limit);
            for (size_t at = 0; at + 1 < size && at < SAMPLE_BYTES; at++) count += text[at] == word[place] && text[at + 1] == word[place + 1];
        }
        if (count < least) least = count, rarest = place;
    }
    return rarest;
}

static int holds(const uint8_t *text, size_t size, const uint8_t *limit, const uint8_t *word, size_t length, size_t middle) {
    if (size < length) return 0;
    size_t places = size - length + 1, at = 0;
    if (length > 1) {
        lane_t one = {0}, two = {0};
        one |= word[middle];
        two |= word[middle + 1];
        for (; at < places && (size_t)(limit - text) >= at + middle + 1 + STEP; at += STEP) {
            const uint8_t *from = text + at + middle;
            lane_t found = (pair(from, one, two) | pair(from + LANE, one, two)) | (pair(from + 2 * LANE, one, two) | pair(from + 3 * LANE, one, two));
            size_t left = places - at;
            if (any(found) && stands_in(text + at, left < STEP ? left : STEP, word, length)) return 1;
        }
    }
    return at < places && stands_in(text + at, places - at, word, length);
}

PyObject *kernel_find(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *views, *buffers;
    Py_buffer word;
    views_t texts;
    blob_t out = {0};
    if (!PyArg_ParseTuple(args, "OOy*", &views, &buffers, &word)) return NULL;
    if (!word.len || !views_open(&texts, views, buffers)) {
        if (!word.len) PyErr_SetString(PyExc_ValueError, "an empty word stands everywhere");
        PyBuffer_Release(&word);
        return NULL;
    }
    int made;
    Py_BEGIN_ALLOW_THREADS
    made = blob_reserve(&out, (size_t)texts.rows * 4 + 4);
    size_t middle = rare_pair(&texts, word.buf, (size_t)word.len);
    for (Py_ssize_t row = 0; made && row < texts.rows; row++) {
        size_t size;
        const uint8_t *limit, *text = views_at(&texts, row, &size, &limit);
        if (!holds(text, size, limit, word.buf, (size_t)word.len, middle)) continue;
        uint32_t place = (uint32_t)row;
        memcpy(out.data + out.size, &place, 4);
        out.size += 4;
    }
    Py_END_ALLOW_THREADS
    views_close(&texts);
    PyBuffer_Release(&word);
    PyObject *result = made ? blob_take(&out) : PyErr_NoMemory();
    blob_free(&out);
    return result;
}

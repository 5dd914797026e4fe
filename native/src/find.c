/* Which payloads contain a word. */

#include "find.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

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

static int occurs_in(const uint8_t *text, size_t starts, const uint8_t *word, size_t size) {
    for (const uint8_t *at = text, *end = text + starts; (at = memchr(at, word[0], (size_t)(end - at))) != NULL; at++)
        if (!memcmp(at, word, size)) return 1;
    return 0;
}

/* The position in the word of two adjacent bytes that are rare in the first texts; only where they occur is the word compared. */
static size_t rare_pair(const views_t *texts, const uint8_t *word, size_t length) {
    size_t rarest = 0, least = SIZE_MAX;
    for (size_t start = 0; start + 1 < length; start++) {
        size_t count = 0;
        for (Py_ssize_t row = 0; row < texts->rows && row < SAMPLE; row++) {
            size_t size;
            const uint8_t *limit, *text = views_at(texts, row, &size, &limit);
            for (size_t at = 0; at + 1 < size && at < SAMPLE_BYTES; at++) count += text[at] == word[start] && text[at + 1] == word[start + 1];
        }
        if (count < least) least = count, rarest = start;
    }
    return rarest;
}

static int contains(const uint8_t *text, size_t size, const uint8_t *limit, const uint8_t *word, size_t length, size_t middle) {
    if (size < length) return 0;
    size_t starts = size - length + 1, at = 0;
    if (length > 1) {
        lane_t one = {0}, two = {0};
        one |= word[middle];
        two |= word[middle + 1];
        for (; at < starts && (size_t)(limit - text) >= at + middle + 1 + STEP; at += STEP) {
            const uint8_t *from = text + at + middle;
            lane_t found = (pair(from, one, two) | pair(from + LANE, one, two)) | (pair(from + 2 * LANE, one, two) | pair(from + 3 * LANE, one, two));
            size_t left = starts - at;
            if (any(found) && occurs_in(text + at, left < STEP ? left : STEP, word, length)) return 1;
        }
    }
    return at < starts && occurs_in(text + at, starts - at, word, length);
}

#if defined(__x86_64__)
/* The same for 64 positions at once; nothing after the text is read. */
__attribute__((target("avx512f,avx512bw"))) static int contains_wide(const uint8_t *text, size_t size, const uint8_t *limit,
                                                                     const uint8_t *word, size_t length, size_t middle) {
    if (size < length || length < 2) return contains(text, size, limit, word, length, middle);
    const __m512i one = _mm512_set1_epi8((char)word[middle]), two = _mm512_set1_epi8((char)word[middle + 1]);
    size_t starts = size - length + 1, at = 0;
    for (; at + 128 <= starts; at += 128) {
        const uint8_t *from = text + at + middle;
        __mmask64 low = _mm512_cmpeq_epi8_mask(_mm512_loadu_si512(from), one);
        __mmask64 high = _mm512_cmpeq_epi8_mask(_mm512_loadu_si512(from + 64), one);
        low = _mm512_mask_cmpeq_epi8_mask(low, _mm512_loadu_si512(from + 1), two);
        high = _mm512_mask_cmpeq_epi8_mask(high, _mm512_loadu_si512(from + 65), two);
        if ((low | high) && occurs_in(text + at, 128, word, length)) return 1;
    }
    return at < starts && contains(text + at, size - at, limit, word, length, middle);
}

contains_t contains_best(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") ? contains_wide : contains;
}
#else
contains_t contains_best(void) { return contains; }
#endif

/* Where the texts of each buffer begin and end; 0 if there is too much else between them, or memory ran out. */
static int spans_of(const views_t *texts, size_t (*spans)[2]) {
    size_t total = 0, spanned = 0;
    for (Py_ssize_t buffer = 0; buffer < texts->count; buffer++) spans[buffer][0] = SIZE_MAX, spans[buffer][1] = 0;
    for (Py_ssize_t row = 0; row < texts->rows;) {
        const view_t *view = texts->first + row;
        if (view->size <= INLINE) {
            row++;
            continue;
        }
        size_t *span = spans[view->buffer], from = span[0], to = span[1];
        const uint32_t buffer = view->buffer;
        for (; row < texts->rows && view->size > INLINE && view->buffer == buffer; row++, view++) {
            size_t end = (size_t)view->offset + view->size;
            from = view->offset < from ? view->offset : from;
            to = end > to ? end : to;
            total += view->size;
        }
        span[0] = from;
        span[1] = to;
    }
    for (Py_ssize_t buffer = 0; buffer < texts->count; buffer++)
        if (spans[buffer][1]) spanned += spans[buffer][1] - spans[buffer][0];
    return spanned <= 2 * total;
}

/* Whether no text can contain the word, because it does not occur in the memory that holds them all. */
static int nowhere(const views_t *texts, const uint8_t *word, size_t length, size_t middle, contains_t in) {
    size_t(*spans)[2] = malloc(((size_t)texts->count + 1) * sizeof *spans);
    int none = spans != NULL && spans_of(texts, spans);
    for (Py_ssize_t row = 0; none && length <= INLINE && row < texts->rows; row++) {
        const view_t *view = texts->first + row;
        if (view->size <= INLINE) none = !contains(view->prefix, view->size, view->prefix + INLINE, word, length, middle);
    }
    for (Py_ssize_t buffer = 0; none && buffer < texts->count; buffer++) {
        const Py_buffer *own = texts->buffers + buffer;
        const uint8_t *begin = own->buf, *limit = begin + own->len;
        size_t from = spans[buffer][0], to = spans[buffer][1];
        if (to) none = !in(begin + from, to - from, limit, word, length, middle);
    }
    free(spans);
    return none;
}

PyObject *kernel_find(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *views, *buffers;
    Py_buffer word;
    views_t texts;
    blob_t out = {0};
    int made, quick;
    if (!PyArg_ParseTuple(args, "OOy*p", &views, &buffers, &word, &quick)) return NULL;
    if (!word.len || !views_open(&texts, views, buffers)) {
        if (!word.len) PyErr_SetString(PyExc_ValueError, "the word must not be empty");
        PyBuffer_Release(&word);
        return NULL;
    }
    const contains_t in = quick ? contains_best() : contains;
    Py_BEGIN_ALLOW_THREADS
    made = blob_reserve(&out, (size_t)texts.rows * 4 + 4);
    size_t middle = rare_pair(&texts, word.buf, (size_t)word.len);
    int none = nowhere(&texts, word.buf, (size_t)word.len, middle, in);
    for (Py_ssize_t row = 0; made && !none && row < texts.rows; row++) {
        size_t size;
        const uint8_t *limit, *text = views_at(&texts, row, &size, &limit);
        if (!in(text, size, limit, word.buf, (size_t)word.len, middle)) continue;
        uint32_t number = (uint32_t)row;
        memcpy(out.data + out.size, &number, 4);
        out.size += 4;
    }
    Py_END_ALLOW_THREADS
    views_close(&texts);
    PyBuffer_Release(&word);
    PyObject *result = made ? blob_take(&out) : PyErr_NoMemory();
    blob_free(&out);
    return result;
}

/* Hashes and ids of records by their sequence numbers; stream/audit/set_hash.py and ids.py say what they are. */

#include "kernel.h"

enum { LIMB = 18, LIMBS = 4, LANES = 2 };

typedef struct {
    uint64_t lanes[LANES];
} lanes_t;

static inline uint64_t mix0(uint64_t value) {
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9U;
    value = (value ^ value >> 27) * 0x94D049BB133111EBU;
    return value ^ value >> 31;
}

static inline uint64_t mix1(uint64_t value) {
    value = (value ^ value >> 33) * 0xFF51AFD7ED558CCDU;
    value = (value ^ value >> 33) * 0xC4CEB9FE1A85EC53U;
    return value ^ value >> 33;
}

static inline void fold(lanes_t *state, uint64_t first, uint64_t second) {
    state->lanes[0] = mix0(state->lanes[0] ^ first);
    state->lanes[1] = mix1(state->lanes[1] ^ second);
}

/* Eight digits at once; 0 where there are others among them. */
static inline int eight_digits(const uint8_t *text, uint64_t *value) {
    uint64_t word;
    memcpy(&word, text, 8);
    if (((word & 0xF0F0F0F0F0F0F0F0U) | ((word + 0x0606060606060606U) & 0xF0F0F0F0F0F0F0F0U) >> 4) != 0x3333333333333333U) return 0;
    word = (word & 0x0F0F0F0F0F0F0F0FU) * 2561 >> 8;
    word = (word & 0x00FF00FF00FF00FFU) * 6553601 >> 16;
    word = (word & 0x0000FFFF0000FFFFU) * 42949672960001U >> 32;
    *value = *value * 100000000 + word;
    return 1;
}

static inline int digits(const uint8_t *text, size_t size, uint64_t *value) {
    *value = 0;
    for (; size >= 8; size -= 8, text += 8)
        if (!eight_digits(text, value)) return 0;
    for (; size; size--, text++) {
        if (*text < '0' || *text > '9') return 0;
        *value = *value * 10 + (*text - '0');
    }
    return 1;
}

/* A sequence number in limbs, the least significant one first. Neighbours mostly agree in the upper ones, which are then left as they are. */
typedef struct {
    uint64_t limbs[LIMBS];
    const uint8_t *text;
    size_t size;
    int same; /* the upper half is that of the number before */
} sequence_t;

static inline int number_read(sequence_t *number, const uint8_t *text, size_t size) {
    if (size < 1 || size > LIMB * LIMBS) return 0;
    size_t upper = size > 2 * LIMB ? size - 2 * LIMB : 0;
    number->same = number->text != NULL && number->size == size && !memcmp(number->text, text, upper);
    for (int limb = 0; limb < (number->same ? 2 : LIMBS); limb++) {
        size_t end = size > (size_t)limb * LIMB ? size - (size_t)limb * LIMB : 0, start = end > LIMB ? end - LIMB : 0;
        if (!digits(text + start, end - start, number->limbs + limb)) return 0;
    }
    number->text = text;
    number->size = size;
    return 1;
}

/* A column of sequence numbers and one of sub-sequence numbers. */
typedef struct {
    views_t sequences;
    Py_buffer subsequences;
} records_t;

static inline int number_at(const records_t *records, Py_ssize_t row, sequence_t *number) {
    size_t size;
    const uint8_t *limit, *text = views_at(&records->sequences, row, &size, &limit);
    return number_read(number, text, size);
}

static int records_open(records_t *records, PyObject *views, PyObject *buffers, PyObject *subsequences) {
    memset(records, 0, sizeof *records);
    if (!views_open(&records->sequences, views, buffers)) return 0;
    if (PyObject_GetBuffer(subsequences, &records->subsequences, PyBUF_SIMPLE)) {
        views_close(&records->sequences);
        return 0;
    }
    if (records->subsequences.len == 4 * records->sequences.rows) return 1;
    PyErr_Format(PyExc_ValueError, "%zd sequence numbers need as many sub-sequence numbers, uint32", records->sequences.rows);
    PyBuffer_Release(&records->subsequences);
    views_close(&records->sequences);
    return 0;
}

static void records_close(records_t *records) {
    PyBuffer_Release(&records->subsequences);
    views_close(&records->sequences);
}

/* Records whose numbers are folded side by side: each fold waits for the one before, but not for those of other records. */
enum { ABREAST = 4 };

static int hash_all(const records_t *records, uint64_t *high, uint64_t *low) {
    static const uint64_t OFFSETS[LANES] = {0x9E3779B97F4A7C15U, 0xD1B54A32D192ED03U};
    const uint32_t *subsequences = records->subsequences.buf;
    sequence_t number = {{0}, NULL, 0, 0};
    lanes_t upper = {{0, 0}};
    *high = *low = 0;
    for (Py_ssize_t row = 0; row < records->sequences.rows; row += ABREAST) {
        Py_ssize_t left = records->sequences.rows - row, abreast = left < ABREAST ? left : ABREAST;
        uint64_t limbs[ABREAST][2] = {{0}};
        lanes_t states[ABREAST];
        for (Py_ssize_t place = 0; place < abreast; place++) {
            if (!number_at(records, row + place, &number)) return 0;
            if (!number.same) {
                upper = (lanes_t){{0, 0}};
                for (int limb = LIMBS - 1; limb >= 2; limb--) fold(&upper, number.limbs[limb], number.limbs[limb]);
            }
            states[place] = upper;
            memcpy(limbs[place], number.limbs, sizeof limbs[place]);
        }
        for (int limb = 1; limb >= 0; limb--)
            for (Py_ssize_t place = 0; place < abreast; place++) fold(states + place, limbs[place][limb], limbs[place][limb]);
        for (Py_ssize_t place = 0; place < abreast; place++) {
            uint64_t subsequence = subsequences[row + place];
            fold(states + place, subsequence + OFFSETS[0], subsequence + OFFSETS[1]);
            *low += states[place].lanes[1];
            *high += states[place].lanes[0] + (*low < states[place].lanes[1]);
        }
    }
    return 1;
}

PyObject *kernel_set_hash(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *views, *buffers, *subsequences;
    records_t records;
    uint64_t high, low;
    if (!PyArg_ParseTuple(args, "OOO", &views, &buffers, &subsequences) || !records_open(&records, views, buffers, subsequences)) return NULL;
    int made;
    Py_BEGIN_ALLOW_THREADS
    made = hash_all(&records, &high, &low);
    Py_END_ALLOW_THREADS
    records_close(&records);
    if (!made) Py_RETURN_NONE;
    return Py_BuildValue("KK", (unsigned long long)high, (unsigned long long)low);
}

static int ids_all(const records_t *records, const unsigned long long *seeds, uint64_t *traces, uint64_t *spans) {
    static const uint64_t OFFSET = 0x9E3779B97F4A7C15U;
    const uint32_t *subsequences = records->subsequences.buf;
    const lanes_t begin = {{mix0(seeds[0]), mix1(seeds[1])}};
    sequence_t number = {{0}, NULL, 0, 0};
    for (Py_ssize_t row = 0; row < records->sequences.rows; row += ABREAST) {
        Py_ssize_t left = records->sequences.rows - row, abreast = left < ABREAST ? left : ABREAST;
        uint64_t limbs[ABREAST][LIMBS];
        lanes_t states[ABREAST];
        for (Py_ssize_t place = 0; place < abreast; place++) {
            if (!number_at(records, row + place, &number)) return 0;
            states[place] = begin;
            memcpy(limbs[place], number.limbs, sizeof number.limbs);
        }
        for (int limb = 0; limb < LIMBS; limb++)
            for (Py_ssize_t place = 0; place < abreast; place++) fold(states + place, limbs[place][limb], limbs[place][limb]);
        for (Py_ssize_t place = 0; place < abreast; place++) {
            uint64_t subsequence = subsequences[row + place] + OFFSET;
            fold(states + place, subsequence, subsequence);
            uint64_t low = states[place].lanes[0] + !states[place].lanes[0], high = states[place].lanes[1];
            uint64_t span = mix1(low ^ mix0(high ^ seeds[2]) ^ seeds[3]);
            traces[2 * (row + place)] = low;
            traces[2 * (row + place) + 1] = high;
            spans[row + place] = span + !span;
        }
    }
    return 1;
}

PyObject *kernel_record_ids(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *views, *buffers, *subsequences, *result = NULL;
    unsigned long long seeds[4];
    records_t records;
    blob_t traces = {0}, spans = {0};
    if (!PyArg_ParseTuple(args, "OOO(KKKK)", &views, &buffers, &subsequences, seeds, seeds + 1, seeds + 2, seeds + 3)) return NULL;
    if (!records_open(&records, views, buffers, subsequences)) return NULL;
    size_t rows = (size_t)records.sequences.rows;
    int made = 0, room = blob_reserve(&traces, 16 * rows + 1) && blob_reserve(&spans, 8 * rows + 1);
    if (room) {
        Py_BEGIN_ALLOW_THREADS
        made = ids_all(&records, seeds, (uint64_t *)(void *)traces.data, (uint64_t *)(void *)spans.data);
        Py_END_ALLOW_THREADS
    }
    records_close(&records);
    traces.size = 16 * rows;
    spans.size = 8 * rows;
    if (!room)
        PyErr_NoMemory();
    else if (made)
        result = Py_BuildValue("NN", blob_take(&traces), blob_take(&spans));
    else
        result = Py_NewRef(Py_None);
    blob_free(&traces);
    blob_free(&spans);
    return result;
}

static void characters_all(const views_t *texts, size_t width, uint8_t *out) {
    for (Py_ssize_t row = 0; row < texts->rows; row++, out += width) {
        size_t size;
        const uint8_t *limit, *text = views_at(texts, row, &size, &limit);
        if (size > width) size = width;
        memcpy(out, text, size);
        memset(out + size, 0, width - size);
    }
}

PyObject *kernel_characters(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *views, *buffers, *result = NULL;
    Py_ssize_t width;
    views_t texts;
    blob_t out = {0};
    if (!PyArg_ParseTuple(args, "OOn", &views, &buffers, &width) || !views_open(&texts, views, buffers)) return NULL;
    if (width < 0)
        PyErr_SetString(PyExc_ValueError, "texts have no negative width");
    else if (!blob_reserve(&out, (size_t)texts.rows * (size_t)width + 1))
        PyErr_NoMemory();
    else {
        Py_BEGIN_ALLOW_THREADS
        characters_all(&texts, (size_t)width, out.data);
        Py_END_ALLOW_THREADS
        out.size = (size_t)texts.rows * (size_t)width;
        result = blob_take(&out);
    }
    blob_free(&out);
    views_close(&texts);
    return result;
}

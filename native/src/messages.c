/* Many messages of one width that differ in a few fields, compressed while they are put together.

   Each message repeats the one before it wherever no field differs, so all matches of DEFLATE have one distance, the width of a message,
   and lie where the fields are not. Nothing has to be searched, and no message exists for longer than the next one needs. Nor is the
   check sum computed over all bytes: it is linear, so from message to message only what differs counts, by its place. */

#include "deflate.h"

/* A message's bytes from ``offset`` on come from a table of rows. */
typedef struct {
    Py_buffer table;
    size_t offset, width;
    Py_ssize_t stride;
    const uint64_t *factors; /* by word of eight bytes: what a change of it is multiplied by in the check sum */
} field_t;

/* Eight bytes of a message that are not those of the message before, and their factor. */
typedef struct {
    uint64_t bits, factor;
} change_t;

typedef struct {
    field_t *fields;
    Py_ssize_t opened, start, count;
    Py_buffer chosen; /* numbers of rows, uint32; without buffer: row after row */
    uint8_t *current, *previous;
    size_t width;
    uint64_t *factors; /* by place of a word, if changes are to be told */
    change_t *changes;
    size_t changed;
    uint32_t ahead[4][256];
    uint64_t matches[LONGEST + 1];
    uint8_t match_sizes[LONGEST + 1];
} messages_t;

enum { LEARNT_FROM = 256, FEW = 64 };

static uint32_t crc_table[8][256];

static void crc_prepare(void) {
    if (crc_table[0][1]) return;
    for (uint32_t value = 0; value < 256; value++) {
        uint32_t sum = value;
        for (int bit = 0; bit < 8; bit++) sum = sum >> 1 ^ (0xEDB88320U & (0U - (sum & 1)));
        crc_table[0][value] = sum;
    }
    for (int table = 1; table < 8; table++)
        for (uint32_t value = 0; value < 256; value++)
            crc_table[table][value] = crc_table[0][crc_table[table - 1][value] & 255] ^ crc_table[table - 1][value] >> 8;
}

static uint32_t crc(uint32_t sum, const uint8_t *text, size_t size) {
    for (; size >= 8; size -= 8, text += 8) {
        uint32_t low, high;
        memcpy(&low, text, 4);
        memcpy(&high, text + 4, 4);
        low ^= sum;
        sum = crc_table[7][low & 255] ^ crc_table[6][low >> 8 & 255] ^ crc_table[5][low >> 16 & 255] ^ crc_table[4][low >> 24] ^
              crc_table[3][high & 255] ^ crc_table[2][high >> 8 & 255] ^ crc_table[1][high >> 16 & 255] ^ crc_table[0][high >> 24];
    }
    for (; size; size--, text++) sum = crc_table[0][(sum ^ *text) & 255] ^ sum >> 8;
    return sum;
}

/* From the images of single bits, lowest first, those of all numbers of so many bits. */
static void spread(const uint32_t *bits, int count, uint32_t *images) {
    images[0] = 0;
    for (int bit = 0; bit < count; bit++)
        for (int value = 0; value < 1 << bit; value++) images[1 << bit | value] = images[value] ^ bits[bit];
}

/* The check sum is what is left of the message, read as a polynomial, when it is divided by another one. A word adds its own polynomial
   times a power of x, so the sum of a message follows from that of the message before and the words that changed: each times the
   remainder of its power, without carries; what these products add up to is divided once, as a message of 16 bytes. Such a product
   comes out divided by x, hence the power before. */
#if defined(__x86_64__)
#include <immintrin.h>
#define CARRYLESS __builtin_cpu_supports("pclmul")

__attribute__((target("pclmul"))) static uint32_t changes_sum(const change_t *changes, size_t count) {
    __m128i sum = _mm_setzero_si128();
    for (size_t place = 0; place < count; place++) {
        __m128i bits = _mm_loadl_epi64((const __m128i *)(const void *)&changes[place].bits);
        __m128i factor = _mm_loadl_epi64((const __m128i *)(const void *)&changes[place].factor);
        sum = _mm_xor_si128(sum, _mm_clmulepi64_si128(bits, factor, 0));
    }
    uint8_t left[16];
    memcpy(left, &sum, sizeof left);
    return crc(0, left, sizeof left);
}
#else
#define CARRYLESS 0

static uint32_t changes_sum(const change_t *changes, size_t count) {
    (void)changes;
    return (uint32_t)count;
}
#endif

/* The factors of all words, and how a sum goes on over a message of zeros. */
static void sums_prepare(messages_t *all) {
    uint32_t state[32], power = 0x80000000U; /* x to the 0; the highest power stands lowest */
    for (int step = 0; step < 65; step++) power = power >> 31 ? (power ^ 0xEDB88320U) << 1 | 1 : power << 1;
    for (size_t place = all->width; place-- > 0;) {
        power = crc_table[0][power & 255] ^ power >> 8;
        all->factors[place] = (uint64_t)power << 32;
    }
    for (int bit = 0; bit < 32; bit++) {
        state[bit] = (uint32_t)1 << bit;
        for (size_t byte = 0; byte < all->width; byte++) state[bit] = crc_table[0][state[bit] & 255] ^ state[bit] >> 8;
    }
    for (int byte = 0; byte < 4; byte++) spread(state + 8 * byte, 8, all->ahead[byte]);
}

static inline uint32_t ahead(const messages_t *all, uint32_t sum) {
    return all->ahead[0][sum & 255] ^ all->ahead[1][sum >> 8 & 255] ^ all->ahead[2][sum >> 16 & 255] ^ all->ahead[3][sum >> 24];
}

/* Up to eight bytes as a number, the first one lowest. */
static inline uint64_t load(const uint8_t *text, size_t size) {
    uint64_t word = 0;
    uint32_t low, high;
    if (size >= 8)
        memcpy(&word, text, 8);
    else if (size >= 4) {
        memcpy(&low, text, 4);
        memcpy(&high, text + size - 4, 4);
        word = low | (uint64_t)high << 8 * (size - 4);
    } else
        for (size_t place = 0; place < size; place++) word |= (uint64_t)text[place] << 8 * place;
    return word;
}

static inline void store(uint8_t *text, size_t size, uint64_t word) {
    if (size >= 8)
        memcpy(text, &word, 8);
    else
        for (size_t place = 0; place < size; place++) text[place] = (uint8_t)(word >> 8 * place);
}

static inline const uint8_t *row_of(const messages_t *all, const field_t *field, Py_ssize_t number) {
    Py_ssize_t row = all->start + number;
    if (all->chosen.buf != NULL) row = ((const uint32_t *)all->chosen.buf)[row];
    return (const uint8_t *)field->table.buf + row * field->stride;
}

static inline void turn(messages_t *all) {
    uint8_t *current = all->previous;
    all->previous = all->current;
    all->current = current;
}

/* Puts a message together in ``current``. */
static void weave(messages_t *all, Py_ssize_t number) {
    turn(all);
    for (Py_ssize_t index = 0; index < all->opened; index++) {
        const field_t *field = all->fields + index;
        if (field->width) memcpy(all->current + field->offset, row_of(all, field, number), field->width);
    }
}

/* Puts a field into the message. Where it begins and ends to differ from the message before; ``first`` is the field's width if it does not. */
typedef struct {
    size_t first, end;
} span_t;

static inline span_t put_field(const messages_t *all, const field_t *field, Py_ssize_t number, size_t *count) {
    const uint8_t *row = row_of(all, field, number), *then = all->previous + field->offset;
    uint8_t *now = all->current + field->offset;
    span_t span = {field->width, 0};
    for (size_t place = 0; place < field->width; place += 8) {
        size_t size = field->width - place;
        uint64_t word = load(row + place, size), changed = word ^ load(then + place, size);
        store(now + place, size, word);
        if (!changed) continue;
        if (span.first == field->width) span.first = place + (size_t)(__builtin_ctzll(changed) >> 3);
        span.end = place + 8 - (size_t)(__builtin_clzll(changed) >> 3);
        if (field->factors != NULL) all->changes[(*count)++] = (change_t){changed, field->factors[place]};
    }
    return span;
}

/* Where tokens go: to be counted, or to be written. */
typedef struct {
    counts_t *counts;
    uint32_t weight;
    part_t distance;
    bits_t out;
    const codes_t *codes;
} sink_t;

static inline void literals(sink_t *sink, const uint8_t *text, size_t size) {
    if (sink->counts != NULL)
        for (; size; size--, text++) sink->counts->literals[*text] += sink->weight;
    else
        bits_literals(&sink->out, sink->codes, text, size);
}

static inline void match(sink_t *sink, const messages_t *all, size_t length) {
    if (sink->counts != NULL) {
        sink->counts->literals[length_part(length).symbol] += sink->weight;
        sink->counts->distances[sink->distance.symbol] += sink->weight;
    } else
        bits_put(&sink->out, all->matches[length], all->match_sizes[length]);
}

/* ``run`` bytes before place ``until`` of the current message, equal to those one message earlier. */
static inline void repeated(sink_t *sink, const messages_t *all, size_t run, size_t until) {
    while (run >= SHORTEST) {
        /* A rest that is too short for a match would cost more than an even cut. */
        size_t length = run <= LONGEST ? run : run < LONGEST + SHORTEST ? run - SHORTEST : LONGEST;
        match(sink, all, length);
        run -= length;
    }
    /* What began before this message is the same in every message since. */
    for (; run; run--) literals(sink, until >= run ? all->current + until - run : all->previous + (2 * all->width + until - run) % all->width, 1);
}

/* The next message behind ``run`` bytes that wait to be written as repeated: how many wait now. */
static inline size_t follow(sink_t *goal, messages_t *all, Py_ssize_t number, size_t run) {
    sink_t sink = *goal; /* copies of its own live in registers */
    size_t place = 0, changed = 0;
    turn(all);
    for (Py_ssize_t index = 0; index < all->opened; index++) {
        const field_t *field = all->fields + index;
        span_t span = put_field(all, field, number, &changed);
        run += field->offset - place + span.first;
        place = field->offset + field->width;
        if (span.first == field->width) continue;
        size_t begin = field->offset + span.first;
        if (run < SHORTEST && run <= begin)
            begin -= run;
        else
            repeated(&sink, all, run, begin);
        literals(&sink, all->current + begin, field->offset + span.end - begin);
        run = field->width - span.end;
    }
    *goal = sink;
    all->changed = changed;
    return run + all->width - place;
}

static void learn(messages_t *all, counts_t *counts) {
    sink_t sink = {counts, 1, {0, 0, 0}, {NULL, 0, 0}, NULL};
    weave(all, 0);
    literals(&sink, all->current, all->width);
    if (all->width > FARTHEST) return;
    Py_ssize_t known = all->count < LEARNT_FROM ? all->count : LEARNT_FROM;
    sink.weight = (uint32_t)(all->count / known);
    sink.distance = distance_part(all->width);
    size_t run = 0;
    for (Py_ssize_t number = 1; number < known; number++) run = follow(&sink, all, number, run);
    repeated(&sink, all, run, all->width);
}

static void matches_prepare(messages_t *all, const codes_t *codes) {
    part_t far = distance_part(all->width);
    code_t distance = codes->distances[far.symbol];
    for (size_t length = SHORTEST; length <= LONGEST; length++) {
        part_t part = length_part(length);
        code_t code = codes->literals[part.symbol];
        unsigned size = code.size;
        uint64_t bits = code.bits | (uint64_t)part.extra << size;
        size += part.extra_size;
        bits |= (uint64_t)distance.bits << size;
        size += distance.size;
        all->matches[length] = bits | (uint64_t)far.extra << size;
        all->match_sizes[length] = (uint8_t)(size + far.extra_size);
    }
}

/* Room for a message however it comes out; 0 where there is no memory. */
static inline int room(blob_t *blob, sink_t *sink, size_t bytes) {
    blob->size = (size_t)(sink->out.at - blob->data);
    if (blob->room - blob->size >= 2 * bytes + 64) return 1;
    if (!blob_reserve(blob, 2 * bytes + 64)) return 0;
    sink->out.at = blob->data + blob->size;
    return 1;
}

/* All messages; the check sum goes on from ``sum``. 0 where there is no memory. */
static int compress(messages_t *all, blob_t *blob, sink_t *sink, uint32_t *sum) {
    size_t run = 0;
    if (all->width <= FARTHEST) matches_prepare(all, sink->codes);
    if (all->factors != NULL) sums_prepare(all);
    if (!room(blob, sink, all->width)) return 0;
    weave(all, 0);
    literals(sink, all->current, all->width);
    uint32_t message = crc(0, all->current, all->width);
    *sum = crc(*sum, all->current, all->width);
    for (Py_ssize_t number = 1; number < all->count; number++) {
        if (!room(blob, sink, all->width + run / 32)) return 0;
        if (all->width > FARTHEST) {
            weave(all, number);
            literals(sink, all->current, all->width);
        } else
            run = follow(sink, all, number, run);
        if (all->factors != NULL) {
            message ^= changes_sum(all->changes, all->changed);
            *sum = ahead(all, *sum) ^ message;
        } else
            *sum = crc(*sum, all->current, all->width);
    }
    if (!room(blob, sink, run / 32)) return 0;
    repeated(sink, all, run, all->width);
    return 1;
}

static void messages_close(messages_t *all) {
    for (Py_ssize_t index = 0; index < all->opened; index++) PyBuffer_Release(&all->fields[index].table);
    if (all->chosen.obj != NULL) PyBuffer_Release(&all->chosen);
    free(all->fields);
    free(all->current < all->previous ? all->current : all->previous);
    free(all->factors);
    free(all->changes);
    memset(all, 0, sizeof *all);
}

static int refuse(const char *why) {
    PyErr_SetString(PyExc_ValueError, why);
    return 0;
}

/* A piece is bytes that all messages share or an array of rows of bytes; 0 and an exception for anything else. */
static int piece_open(messages_t *all, PyObject *piece, blob_t *shared) {
    Py_buffer view;
    if (PyBytes_Check(piece)) {
        char *text;
        Py_ssize_t size;
        if (PyBytes_AsStringAndSize(piece, &text, &size)) return 0;
        if (!blob_reserve(shared, (size_t)size)) return PyErr_NoMemory() != NULL;
        memcpy(shared->data + shared->size, text, (size_t)size);
        shared->size += (size_t)size;
        return 1;
    }
    if (PyObject_GetBuffer(piece, &view, PyBUF_STRIDED_RO)) return 0;
    field_t *field = all->fields + all->opened++;
    field->table = view;
    if (view.ndim != 2 || view.itemsize != 1 || (view.strides[1] != 1 && view.shape[1] > 1)) return refuse("a field is rows of bytes");
    if (view.shape[0] > 1 && view.strides[0] < 0) return refuse("the rows of a field lie one behind the other");
    field->offset = shared->size;
    field->width = (size_t)view.shape[1];
    field->stride = view.shape[0] > 1 ? view.strides[0] : 0;
    return blob_resize(shared, shared->size + field->width) ? 1 : PyErr_NoMemory() != NULL;
}

static int rows_check(const messages_t *all) {
    Py_ssize_t last = all->start + all->count - 1;
    if (all->chosen.buf != NULL) {
        if (all->chosen.len < (last + 1) * 4) return refuse("fewer rows are chosen than there are messages");
        const uint32_t *chosen = all->chosen.buf;
        uint32_t greatest = 0;
        for (Py_ssize_t place = all->start; place <= last; place++) greatest = chosen[place] > greatest ? chosen[place] : greatest;
        last = greatest;
    }
    for (Py_ssize_t index = 0; index < all->opened; index++)
        if (all->fields[index].table.shape[0] != 1 && all->fields[index].table.shape[0] <= last) return refuse("a field has too few rows");
    return 1;
}

/* From (pieces, numbers of rows or None, first, count); 0 and an exception if it is not that. */
static int messages_open(messages_t *all, PyObject *block) {
    PyObject *pieces, *chosen;
    blob_t shared = {0};
    if (!PyArg_ParseTuple(block, "O!Onn", &PyTuple_Type, &pieces, &chosen, &all->start, &all->count)) return 0;
    if (all->start < 0 || all->count < 1) return refuse("a block has one message at least");
    if (chosen != Py_None && PyObject_GetBuffer(chosen, &all->chosen, PyBUF_SIMPLE)) return 0;
    Py_ssize_t count = PyTuple_Size(pieces);
    all->fields = calloc((size_t)count + 1, sizeof(field_t));
    if (all->fields == NULL) return PyErr_NoMemory() != NULL;
    for (Py_ssize_t index = 0; index < count; index++)
        if (!piece_open(all, PyTuple_GetItem(pieces, index), &shared)) {
            blob_free(&shared);
            return 0;
        }
    all->width = shared.size;
    size_t bytes = 0;
    for (Py_ssize_t index = 0; index < all->opened; index++) bytes += all->fields[index].width;
    all->current = malloc(2 * shared.size + 8); /* and what is read behind the last message */
    int told = all->count >= FEW && shared.size <= FARTHEST && CARRYLESS;
    if (told) {
        all->factors = malloc((shared.size + 1) * sizeof *all->factors);
        all->changes = malloc((bytes / 8 + (size_t)all->opened + 1) * sizeof *all->changes);
    }
    if (all->current == NULL || (told && (all->factors == NULL || all->changes == NULL))) {
        blob_free(&shared);
        return PyErr_NoMemory() != NULL;
    }
    all->previous = all->current + shared.size;
    if (shared.size) {
        memcpy(all->current, shared.data, shared.size);
        memcpy(all->previous, shared.data, shared.size);
    }
    blob_free(&shared);
    for (Py_ssize_t index = 0; index < all->opened && told; index++) all->fields[index].factors = all->factors + all->fields[index].offset;
    return all->width ? rows_check(all) : refuse("a message has one byte at least");
}

/* The whole gzip member; 0 where there is no memory. */
static int member(blob_t *blob, messages_t *blocks, Py_ssize_t count, const blob_t *head, const blob_t *tail) {
    static const uint8_t MAGIC[10] = {0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 4, 0xFF};
    counts_t counts = {0};
    codes_t codes;
    uint64_t size = (uint64_t)head->size + (uint64_t)tail->size;
    counts.literals[END_OF_BLOCK] = 1;
    sink_t counting = {&counts, 1, {0, 0, 0}, {NULL, 0, 0}, NULL};
    literals(&counting, head->data, head->size);
    literals(&counting, tail->data, tail->size);
    for (Py_ssize_t index = 0; index < count; index++) {
        learn(blocks + index, &counts);
        size += blocks[index].width * (uint64_t)blocks[index].count;
    }
    codes_for(&counts, &codes);
    if (!blob_reserve(blob, sizeof MAGIC + HEAD_BYTES + 2 * head->size + 64)) return 0;
    memcpy(blob->data, MAGIC, sizeof MAGIC);
    sink_t sink = {NULL, 0, {0, 0, 0}, {blob->data + sizeof MAGIC, 0, 0}, &codes};
    bits_head(&sink.out, &codes);
    literals(&sink, head->data, head->size);
    uint32_t sum = crc(0xFFFFFFFFU, head->data, head->size);
    for (Py_ssize_t index = 0; index < count; index++)
        if (!compress(blocks + index, blob, &sink, &sum)) return 0;
    if (!room(blob, &sink, tail->size)) return 0;
    literals(&sink, tail->data, tail->size);
    sum = crc(sum, tail->data, tail->size) ^ 0xFFFFFFFFU;
    bits_put(&sink.out, codes.literals[END_OF_BLOCK].bits, codes.literals[END_OF_BLOCK].size);
    if (sink.out.waiting) sink.out.at++;
    memcpy(sink.out.at, &sum, 4);
    uint32_t rest = (uint32_t)size;
    memcpy(sink.out.at + 4, &rest, 4);
    blob->size = (size_t)(sink.out.at + 8 - blob->data);
    return 1;
}

/* With room for what is read behind. */
static int copied(blob_t *to, const char *text, size_t size) {
    if (!blob_resize(to, size + 8)) return 0;
    memcpy(to->data, text, size);
    to->size = size;
    return 1;
}

PyObject *kernel_gzip(PyObject *module, PyObject *args) {
    (void)module;
    const char *ends[2];
    Py_ssize_t sizes[2];
    PyObject *list, *result = NULL;
    blob_t blob = {0}, head = {0}, tail = {0};
    if (!PyArg_ParseTuple(args, "y#O!y#", &ends[0], &sizes[0], &PyTuple_Type, &list, &ends[1], &sizes[1])) return NULL;
    Py_ssize_t count = PyTuple_Size(list), opened = 0;
    messages_t *blocks = calloc((size_t)count + 1, sizeof *blocks);
    crc_prepare();
    if (blocks == NULL || !copied(&head, ends[0], (size_t)sizes[0]) || !copied(&tail, ends[1], (size_t)sizes[1])) {
        PyErr_NoMemory();
        goto done;
    }
    while (opened < count) {
        PyObject *block = PyTuple_GetItem(list, opened);
        if (!messages_open(blocks + opened++, block)) goto done;
    }
    int made;
    Py_BEGIN_ALLOW_THREADS
    made = member(&blob, blocks, count, &head, &tail);
    Py_END_ALLOW_THREADS
    result = made ? PyBytes_FromStringAndSize((const char *)blob.data, (Py_ssize_t)blob.size) : PyErr_NoMemory();
done:
    for (Py_ssize_t index = 0; index < opened; index++) messages_close(blocks + index);
    free(blocks);
    blob_free(&blob);
    blob_free(&head);
    blob_free(&tail);
    return result;
}

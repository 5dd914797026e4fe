/* A zstd frame (RFC 8878) of messages that are never put together in memory.

   As in pattern.c, each message repeats the previous one except where fields differ. Literals are stored uncompressed, and all matches have
   the same distance, which zstd can leave out. The sequences of a block are therefore the same for each of its messages, and the same in
   every block of as many messages: they are encoded once. What is left to do for a message is to copy the bytes that differ. */

#include "differences.h"
#include "fse.h"

enum { RAW = 0, COMPRESSED = 2, BLOCK = 1 << 17, BLOCK_HEAD = 3, LITERALS_HEAD = 3, SEQUENCES_HEAD = 4 };
enum { SHORTEST_MATCH = 3, WIDEST = 1 << 16, OFFSETS = 3 };

/* How a length is encoded: the symbol, and what is to be added to the least length that the symbol stands for. */
typedef struct {
    unsigned symbol, extra_size;
    uint32_t extra;
} length_t;

/* Literals and the match that follows them. */
typedef struct {
    length_t literals, match;
} sequence_t;

/* Bytes that are copied for each message. */
typedef struct {
    const uint8_t *rows;
    Py_ssize_t stride;
    size_t size;
} piece_t;

/* What the messages of one block of the request have in common, as far as is known by now. */
typedef struct {
    messages_t *all;
    extent_t *extents;
    word_t *words;
    piece_t *pieces;
    size_t *literals, *matches; /* lengths, by run */
    sequence_t *sequences;      /* by run */
    size_t worded, pieced, runs;
    size_t before, after; /* bytes of a message before the literals of the first run, and after those of the last one */
    size_t copied;        /* literals of a message, in bytes */
    Py_ssize_t most;      /* messages that fit into a block of zstd */
    blob_t section;       /* the sequences of a block of ``made_for`` messages */
    Py_ssize_t made_for;
} same_t;

static length_t coded(size_t length, const uint32_t *least, unsigned symbols) {
    unsigned symbol = symbols - 1;
    while (least[symbol] > length) symbol--;
    /* The lengths of one symbol are a power of two in number. */
    uint32_t covers = symbol + 1 < symbols ? least[symbol + 1] - least[symbol] : 1 << 16;
    unsigned size = 0;
    while (1U << size < covers) size++;
    return (length_t){symbol, size, (uint32_t)(length - least[symbol])};
}

static length_t literals_coded(size_t length) {
    static const uint32_t LEAST[] = {0,  1,  2,  3,  4,  5,  6,  7,   8,   9,   10,   11,   12,   13,   14,    15,    16,   18,
                                     20, 22, 24, 28, 32, 40, 48, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536};
    return coded(length, LEAST, sizeof LEAST / sizeof *LEAST);
}

static length_t match_coded(size_t length) {
    static const uint32_t LEAST[] = {3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15, 16, 17,  18,  19,  20,   21,   22,   23,   24,    25,    26,   27, 28, 29,
                                     30, 31, 32, 33, 34, 35, 37, 39, 41, 43, 47, 51, 59, 67, 83, 99, 131, 259, 515, 1027, 2051, 4099, 8195, 16387, 32771, 65539};
    return coded(length, LEAST, sizeof LEAST / sizeof *LEAST);
}

static void number_put(uint8_t *at, size_t number, size_t bytes) {
    for (size_t place = 0; place < bytes; place++) at[place] = (uint8_t)(number >> 8 * place);
}

/* Writes bytes uncompressed; 0 where there is no memory. */
static int raw_write(blob_t *blob, const uint8_t *text, size_t size, int last) {
    do {
        size_t part = size < BLOCK ? size : BLOCK;
        if (!blob_reserve(blob, BLOCK_HEAD + part)) return 0;
        number_put(blob->data + blob->size, part << 3 | RAW << 1 | (last && part == size), BLOCK_HEAD);
        blob->size += BLOCK_HEAD;
        blob_put(blob, text, part);
        text += part;
        size -= part;
    } while (size);
    return 1;
}

static size_t piece_put(same_t *same, const uint8_t *rows, Py_ssize_t stride, size_t size) {
    same->pieces[same->pieced++] = (piece_t){rows, stride, size};
    same->copied += size;
    return size;
}

/* Finds the runs of literals. What lies between two of them is a match, unless it is too short: then they are one run. */
static void runs_find(same_t *same) {
    const messages_t *all = same->all;
    size_t end = 0;
    same->runs = same->pieced = same->copied = same->before = 0;
    for (Py_ssize_t index = 0; index < all->opened; index++) {
        const field_t *field = all->fields + index;
        const extent_t *extent = same->extents + index;
        if (!extent->end) continue;
        size_t begin = field->offset + extent->first, still = begin - end;
        if (!same->runs) {
            same->before = still;
            same->literals[same->runs++] = 0;
        } else if (still < SHORTEST_MATCH)
            same->literals[same->runs - 1] += piece_put(same, all->shared + end, 0, still);
        else {
            same->matches[same->runs - 1] = still;
            same->literals[same->runs++] = 0;
        }
        const uint8_t *rows = (const uint8_t *)field->table.buf + extent->first;
        same->literals[same->runs - 1] += piece_put(same, rows, field->stride, extent->end - extent->first);
        end = field->offset + extent->end;
    }
    if (!same->runs) {
        /* Every match needs a literal before it: without one, "the same distance" means another one. */
        same->literals[same->runs++] = piece_put(same, all->shared, 0, 1);
        end = 1;
    }
    same->after = all->width - end;
    same->matches[same->runs - 1] = same->after + same->before;
}

/* Prepares for messages like the one in ``shared``; 0 if they end too soon after a field that differs to end in a match. */
static int prepare(same_t *same) {
    const messages_t *all = same->all;
    runs_find(same);
    if (same->after < SHORTEST_MATCH) return 0;
    same->worded = 0;
    size_t words = words_find(all, same->extents, same->words), bits = 0;
    for (size_t word = 0; word < words; word++)
        if (same->words[word].still) same->words[same->worded++] = same->words[word];
    for (size_t run = 0; run < same->runs; run++) {
        same->sequences[run] = (sequence_t){literals_coded(same->literals[run]), match_coded(same->matches[run])};
        bits += 2 * STATE_BITS + same->sequences[run].literals.extra_size + same->sequences[run].match.extra_size;
    }
    size_t others = BLOCK_HEAD + LITERALS_HEAD + SEQUENCES_HEAD + 2 * TABLE_BYTES + same->before + 64;
    size_t many = BLOCK / all->width, few = (BLOCK - others) / (same->copied + bits / 8 + 1);
    same->most = (Py_ssize_t)(many < few ? many : few);
    same->made_for = 0;
    return same->most > 0;
}

/* Sequence ``number`` of ``all`` sequences of a block. */
static inline sequence_t sequence_at(const same_t *same, size_t number, size_t all) {
    sequence_t sequence = same->sequences[number % same->runs];
    if (!number) sequence.literals = literals_coded(same->literals[0] + same->before);
    if (number + 1 == all) sequence.match = match_coded(same->after);
    return sequence;
}

static void length_put(bits_t *out, length_t length) { bits_put(out, length.extra, length.extra_size); }

/* Encodes the sequences of a block of ``count`` messages. If ``far`` is not 0 they state it as the distance; otherwise it is that of the
   previous block. 0 where there is no memory. */
static int sequences_make(same_t *same, Py_ssize_t count, size_t far) {
    size_t all = (size_t)count * same->runs;
    uint32_t literals[SYMBOLS] = {0}, matches[SYMBOLS] = {0};
    blob_t *blob = &same->section;
    table_t literal_table, match_table;
    for (size_t number = 0; number < all; number++) {
        sequence_t sequence = sequence_at(same, number, all);
        literals[sequence.literals.symbol]++;
        matches[sequence.match.symbol]++;
    }
    table_for(literals, &literal_table);
    table_for(matches, &match_table);
    blob->size = 0;
    if (!blob_reserve(blob, SEQUENCES_HEAD + 2 * TABLE_BYTES + all * 16 + 64)) return 0;
    uint8_t *at = blob->data;
    if (all < 128)
        *at++ = (uint8_t)all;
    else if (all < 0x7F00) {
        *at++ = (uint8_t)(all >> 8 | 128);
        *at++ = (uint8_t)all;
    } else {
        *at++ = 255;
        number_put(at, all - 0x7F00, 2);
        at += 2;
    }
    enum { SAME = 1, DESCRIBED = 2 };
    unsigned distance = 0, distance_bits = 0;
    if (far) {
        while (2ULL << distance_bits <= far + OFFSETS) distance_bits++;
        distance = (unsigned)(far + OFFSETS) - (1U << distance_bits);
    }
    *at++ = (uint8_t)((literal_table.bits ? DESCRIBED : SAME) << 6 | SAME << 4 | (match_table.bits ? DESCRIBED : SAME) << 2);
    at += table_write(&literal_table, at);
    *at++ = (uint8_t)distance_bits;
    at += table_write(&match_table, at);
    bits_t out = {at, 0, 0};
    unsigned literal_state = 0, match_state = 0;
    for (size_t number = all; number--;) {
        sequence_t sequence = sequence_at(same, number, all);
        if (number + 1 == all) {
            match_state = state_last(&match_table, sequence.match.symbol);
            literal_state = state_last(&literal_table, sequence.literals.symbol);
        } else {
            match_state = state_before(&match_table, &out, sequence.match.symbol, match_state);
            literal_state = state_before(&literal_table, &out, sequence.literals.symbol, literal_state);
        }
        length_put(&out, sequence.literals);
        length_put(&out, sequence.match);
        bits_put(&out, distance, distance_bits);
    }
    bits_put(&out, match_state, match_table.bits);
    bits_put(&out, literal_state, literal_table.bits);
    bits_put(&out, 1, 1);
    blob->size = (size_t)(out.at - blob->data) + (out.waiting > 0);
    same->made_for = far ? 0 : count;
    return 1;
}

/* Copies ``size`` bytes; quicker than memcpy where they are few. */
static inline uint8_t *copy(uint8_t *to, const uint8_t *from, size_t size) {
    if (size >= 16) {
        for (size_t place = 0; place + 16 < size; place += 16) memcpy(to + place, from + place, 16);
        memcpy(to + size - 16, from + size - 16, 16);
    } else if (size >= 8) {
        memcpy(to, from, 8);
        memcpy(to + size - 8, from + size - 8, 8);
    } else if (size >= 4) {
        memcpy(to, from, 4);
        memcpy(to + size - 4, from + size - 4, 4);
    } else
        for (size_t place = 0; place < size; place++) to[place] = from[place];
    return to + size;
}

/* Whether one of the messages from ``number`` to ``limit`` changes a bit that none may change, in words that lie side by side. */
static inline __attribute__((always_inline)) int changes(const messages_t *all, const word_t *word, size_t words, size_t size,
                                                         Py_ssize_t number, Py_ssize_t limit) {
    uint64_t changed[4] = {0}, wrong = 0;
    for (; number < limit; number++) {
        const uint8_t *text = word->rows + row_of(all, number) * word->stride;
        for (size_t place = 0; place < words; place++) changed[place] |= load(text + 8 * place, size) ^ word[place].base;
    }
    for (size_t place = 0; place < words; place++) wrong |= changed[place] & word[place].still;
    return wrong != 0;
}

/* Whether the whole words lie side by side. */
static inline int beside(const word_t *word, const word_t *next) {
    return word->size == 8 && next->size == 8 && next->rows == word->rows + 8 && next->stride == word->stride;
}

/* Whether one of these messages differs where none did before. The answer is nearly always no, and this is the quickest way to it: a few
   words at a time through all messages, with the usual sizes known to the compiler (a number has five bytes). */
static int differ_elsewhere(const same_t *same, Py_ssize_t number, Py_ssize_t limit) {
    const word_t *word = same->words, *end = word + same->worded;
    while (word < end) {
        size_t words = 1;
        while (words < 4 && word + words < end && beside(word + words - 1, word + words)) words++;
        if (words == 3) words = 2;
        if (words == 4   ? changes(same->all, word, 4, 8, number, limit)
            : words == 2 ? changes(same->all, word, 2, 8, number, limit)
            : word->size == 8 ? changes(same->all, word, 1, 8, number, limit)
            : word->size == 5 ? changes(same->all, word, 1, 5, number, limit)
                              : changes(same->all, word, 1, word->size, number, limit))
            return 1;
        word += words;
    }
    return 0;
}

/* The first message from ``number`` on that differs where none did before; ``limit`` if there is none. */
static Py_ssize_t alike_until(const same_t *same, Py_ssize_t number, Py_ssize_t limit) {
    if (!differ_elsewhere(same, number, limit)) return limit;
    while (!differ_elsewhere(same, number, number + 1)) number++;
    return number;
}

/* Copies the literals of the messages from ``number`` to ``limit``. */
static void literals_write(const same_t *same, uint8_t *at, Py_ssize_t number, Py_ssize_t limit) {
    const piece_t *end = same->pieces + same->pieced;
    at = copy(at, same->all->shared, same->before);
    for (; number < limit; number++) {
        Py_ssize_t row = row_of(same->all, number);
        for (const piece_t *piece = same->pieces; piece < end; piece++) at = copy(at, piece->rows + row * piece->stride, piece->size);
    }
}

/* Writes a block of messages from ``number`` on, up to ``limit``, or to one that differs elsewhere; the number of the next message, or -1
   where there is no memory. */
static Py_ssize_t block_write(same_t *same, blob_t *blob, Py_ssize_t number, Py_ssize_t limit, size_t far) {
    Py_ssize_t next = alike_until(same, number, limit);
    if (next == number) return next;
    size_t size = same->before + same->copied * (size_t)(next - number);
    if (!blob_reserve(blob, BLOCK_HEAD + LITERALS_HEAD + size)) return -1;
    if (next - number != same->made_for && !sequences_make(same, next - number, far)) return -1;
    uint8_t *start = blob->data + blob->size;
    literals_write(same, start + BLOCK_HEAD + LITERALS_HEAD, number, next);
    number_put(start + BLOCK_HEAD, size << 4 | 3 << 2 | RAW, LITERALS_HEAD);
    number_put(start, (LITERALS_HEAD + size + same->section.size) << 3 | COMPRESSED << 1, BLOCK_HEAD);
    blob->size += BLOCK_HEAD + LITERALS_HEAD + size;
    return blob_put(blob, same->section.data, same->section.size) ? next : -1;
}

/* Writes the messages from ``number`` on uncompressed; 0 where there is no memory. */
static int rest_write(messages_t *all, blob_t *blob, Py_ssize_t number) {
    for (; number < all->count; number++) {
        weave(all, number);
        if (!raw_write(blob, all->shared, all->width, 0)) return 0;
    }
    return 1;
}

/* Widens the extents of fields to where message ``number`` differs. */
static void widen(same_t *same, Py_ssize_t number) {
    const messages_t *all = same->all;
    Py_ssize_t row = row_of(all, number);
    for (Py_ssize_t index = 0; index < all->opened; index++) {
        const field_t *field = all->fields + index;
        extent_widen(same->extents + index, field_at(field, row), all->shared + field->offset, field->width);
    }
}

/* Writes all messages after the first one, which is in ``shared``; 0 where there is no memory. */
static int others_write(same_t *same, blob_t *blob) {
    messages_t *all = same->all;
    Py_ssize_t number = 1;
    size_t far = all->width;
    if (!extents_learn(all, all->count < LEARNT_FROM ? all->count : LEARNT_FROM, same->extents)) return 0;
    int ready = prepare(same);
    while (ready && number < all->count) {
        Py_ssize_t left = all->count - number, most = far ? 1 : same->most;
        Py_ssize_t next = block_write(same, blob, number, number + (left < most ? left : most), far);
        if (next < 0) return 0;
        if (next > number)
            far = 0;
        else {
            widen(same, number);
            ready = prepare(same);
        }
        number = next;
    }
    return rest_write(all, blob, number);
}

static int messages_write(messages_t *all, blob_t *blob) {
    size_t fields = (size_t)all->opened + 1;
    weave(all, 0);
    if (all->count == 1 || all->width > WIDEST) return rest_write(all, blob, 0);
    same_t same = {.all = all,
                   .extents = malloc(fields * sizeof *same.extents),
                   .words = malloc(WORDS_AT_MOST(all) * sizeof *same.words),
                   .pieces = malloc(2 * fields * sizeof *same.pieces),
                   .literals = malloc(fields * sizeof *same.literals),
                   .matches = malloc(fields * sizeof *same.matches),
                   .sequences = malloc(fields * sizeof *same.sequences)};
    int made = same.extents != NULL && same.words != NULL && same.pieces != NULL && same.literals != NULL && same.matches != NULL &&
               same.sequences != NULL && raw_write(blob, all->shared, all->width, 0) && others_write(&same, blob);
    free(same.extents);
    free(same.words);
    free(same.pieces);
    free(same.literals);
    free(same.matches);
    blob_free(&same.section);
    free(same.sequences);
    return made;
}

/* The whole frame; 0 where there is no memory. */
static int frame_write(blob_t *blob, const request_t *request) {
    /* The frame states its size, in eight bytes, and matches reach back 128 KiB at most. */
    static const uint8_t HEAD[] = {0x28, 0xB5, 0x2F, 0xFD, 3 << 6, 7 << 3};
    size_t size = request->head.size + request->tail.size;
    for (Py_ssize_t index = 0; index < request->count; index++) size += request->blocks[index].width * (size_t)request->blocks[index].count;
    /* Spans come down to an eighth; memory that need not grow need not be copied. */
    if (!blob_reserve(blob, size / 6 + BLOCK)) return 0;
    blob_put(blob, HEAD, sizeof HEAD);
    number_put(blob->data + blob->size, size, 8);
    blob->size += 8;
    if (!raw_write(blob, request->head.data, request->head.size, 0)) return 0;
    for (Py_ssize_t index = 0; index < request->count; index++)
        if (!messages_write(request->blocks + index, blob)) return 0;
    return raw_write(blob, request->tail.data, request->tail.size, 1);
}

PyObject *kernel_zstd(PyObject *module, PyObject *args) {
    (void)module;
    blob_t blob = {0};
    request_t request = {0};
    PyObject *result = NULL;
    if (request_open(&request, args)) {
        int made;
        Py_BEGIN_ALLOW_THREADS
        made = frame_write(&blob, &request);
        Py_END_ALLOW_THREADS
        result = made ? PyBytes_FromStringAndSize((const char *)blob.data, (Py_ssize_t)blob.size) : PyErr_NoMemory();
    }
    request_close(&request);
    blob_free(&blob);
    return result;
}

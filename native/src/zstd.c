/* Writes a zstd frame (RFC 8878) of messages that are never assembled in memory as a whole.

   As in pattern.c, each message repeats the previous one except where fields differ. Literals are stored raw, and all matches have the same
   offset, which zstd encodes as a repeat offset. So all messages of a block have the same sequences, and so do all blocks with the same number
   of messages: the sequences are encoded once. The only work per message is to copy the bytes that differ. */

#include "differences.h"
#include "fse.h"

enum { RAW = 0, COMPRESSED = 2, BLOCK = 1 << 17, BLOCK_HEADER = 3, LITERALS_HEADER = 3, SEQUENCES_HEADER = 4 };
enum { SHORTEST_MATCH = 3, MAX_WIDTH = 1 << 16, REPEAT_OFFSETS = 3 };

/* An encoded length: its code, and the extra bits, which are added to the code's baseline. */
typedef struct {
    unsigned symbol, extra_size;
    uint32_t extra;
} length_t;

/* A sequence: the lengths of its literals and of the match that follows. */
typedef struct {
    length_t literals, match;
} sequence_t;

/* A range of literals that is copied for each message. */
typedef struct {
    const uint8_t *rows;
    Py_ssize_t stride;
    size_t size;
} piece_t;

/* How the messages of one block of the request are encoded, given the differences known so far. A run is a range of consecutive literals. */
typedef struct {
    messages_t *all;
    extent_t *extents;
    word_t *words;
    piece_t *pieces;
    size_t *literals, *matches; /* lengths, by run */
    sequence_t *sequences;      /* by run */
    size_t word_count, piece_count, runs;
    size_t before, after; /* bytes of a message before the literals of the first run, and after those of the last */
    size_t copied;        /* bytes of literals per message */
    blob_t section;       /* the encoded sequences section of a block of ``section_messages`` messages */
    Py_ssize_t section_messages;
    Py_ssize_t max_messages; /* the number of messages that fit into a zstd block */
} encoding_t;

static length_t length_encode(size_t length, const uint32_t *baselines, unsigned symbols) {
    unsigned symbol = symbols - 1;
    while (baselines[symbol] > length) symbol--;
    /* Each code covers a power of two of lengths. */
    uint32_t values = symbol + 1 < symbols ? baselines[symbol + 1] - baselines[symbol] : 1 << 16;
    unsigned size = 0;
    while (1U << size < values) size++;
    return (length_t){symbol, size, (uint32_t)(length - baselines[symbol])};
}

static length_t literals_length(size_t length) {
    static const uint32_t BASELINES[] = {0,  1,  2,  3,  4,  5,  6,  7,   8,   9,   10,   11,   12,   13,   14,    15,    16,   18,
                                     20, 22, 24, 28, 32, 40, 48, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536};
    return length_encode(length, BASELINES, sizeof BASELINES / sizeof *BASELINES);
}

static length_t match_length(size_t length) {
    static const uint32_t BASELINES[] = {3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15, 16, 17,  18,  19,  20,   21,   22,   23,   24,    25,    26,   27, 28, 29,
                                     30, 31, 32, 33, 34, 35, 37, 39, 41, 43, 47, 51, 59, 67, 83, 99, 131, 259, 515, 1027, 2051, 4099, 8195, 16387, 32771, 65539};
    return length_encode(length, BASELINES, sizeof BASELINES / sizeof *BASELINES);
}

/* Writes bytes as raw blocks; 0 if memory ran out. */
static int raw_write(blob_t *blob, const uint8_t *text, size_t size, int last) {
    do {
        size_t part = size < BLOCK ? size : BLOCK;
        if (!blob_reserve(blob, BLOCK_HEADER + part)) return 0;
        number_put(blob->data + blob->size, part << 3 | RAW << 1 | (last && part == size), BLOCK_HEADER);
        blob->size += BLOCK_HEADER;
        blob_put(blob, text, part);
        text += part;
        size -= part;
    } while (size);
    return 1;
}

static size_t piece_put(encoding_t *encoding, const uint8_t *rows, Py_ssize_t stride, size_t size) {
    encoding->pieces[encoding->piece_count++] = (piece_t){rows, stride, size};
    encoding->copied += size;
    return size;
}

/* Finds the runs of literals. The bytes between two runs are a match; if they are too few for one, the runs are merged. */
static void runs_find(encoding_t *encoding) {
    const messages_t *all = encoding->all;
    size_t end = 0;
    encoding->runs = encoding->piece_count = encoding->copied = encoding->before = 0;
    for (Py_ssize_t index = 0; index < all->opened; index++) {
        const field_t *field = all->fields + index;
        const extent_t *extent = encoding->extents + index;
        if (!extent->end) continue;
        size_t begin = field->offset + extent->first, unchanged = begin - end;
        if (!encoding->runs) {
            encoding->before = unchanged;
            encoding->literals[encoding->runs++] = 0;
        } else if (unchanged < SHORTEST_MATCH)
            encoding->literals[encoding->runs - 1] += piece_put(encoding, all->shared + end, 0, unchanged);
        else {
            encoding->matches[encoding->runs - 1] = unchanged;
            encoding->literals[encoding->runs++] = 0;
        }
        const uint8_t *rows = (const uint8_t *)field->table.buf + extent->first;
        encoding->literals[encoding->runs - 1] += piece_put(encoding, rows, field->stride, extent->end - extent->first);
        end = field->offset + extent->end;
    }
    if (!encoding->runs) {
        /* Each match must be preceded by a literal: without one, the repeat offset code refers to another offset. */
        encoding->literals[encoding->runs++] = piece_put(encoding, all->shared, 0, 1);
        end = 1;
    }
    encoding->after = all->width - end;
    encoding->matches[encoding->runs - 1] = encoding->after + encoding->before;
}

/* Prepares for messages that differ from the one in ``shared`` only in the extents; 0 if the bytes after the last run are too few for a
   match. */
static int prepare(encoding_t *encoding) {
    const messages_t *all = encoding->all;
    runs_find(encoding);
    if (encoding->after < SHORTEST_MATCH) return 0;
    encoding->word_count = 0;
    size_t words = words_find(all, encoding->extents, encoding->words), bits = 0;
    for (size_t word = 0; word < words; word++)
        if (encoding->words[word].fixed) encoding->words[encoding->word_count++] = encoding->words[word];
    for (size_t run = 0; run < encoding->runs; run++) {
        encoding->sequences[run] = (sequence_t){literals_length(encoding->literals[run]), match_length(encoding->matches[run])};
        bits += 2 * STATE_BITS + encoding->sequences[run].literals.extra_size + encoding->sequences[run].match.extra_size;
    }
    size_t overhead = BLOCK_HEADER + LITERALS_HEADER + SEQUENCES_HEADER + 2 * TABLE_BYTES + encoding->before + 64;
    size_t by_content = BLOCK / all->width, by_encoded = (BLOCK - overhead) / (encoding->copied + bits / 8 + 1);
    encoding->max_messages = (Py_ssize_t)(by_content < by_encoded ? by_content : by_encoded);
    encoding->section_messages = 0;
    return encoding->max_messages > 0;
}

/* Sequence ``number`` of a block with ``all`` sequences. */
static inline sequence_t sequence_at(const encoding_t *encoding, size_t number, size_t all) {
    sequence_t sequence = encoding->sequences[number % encoding->runs];
    if (!number) sequence.literals = literals_length(encoding->literals[0] + encoding->before);
    if (number + 1 == all) sequence.match = match_length(encoding->after);
    return sequence;
}

static void length_put(bits_t *out, length_t length) { bits_put(out, length.extra, length.extra_size); }

/* Encodes the sequences section of a block of ``count`` messages. ``offset`` is that of their matches, or 0 for the repeat offset from
   the previous block. Returns 0 if memory ran out. */
static int sequences_make(encoding_t *encoding, Py_ssize_t count, size_t offset) {
    size_t all = (size_t)count * encoding->runs;
    uint32_t literals[SYMBOLS] = {0}, matches[SYMBOLS] = {0};
    blob_t *blob = &encoding->section;
    table_t literal_table, match_table;
    for (size_t number = 0; number < all; number++) {
        sequence_t sequence = sequence_at(encoding, number, all);
        literals[sequence.literals.symbol]++;
        matches[sequence.match.symbol]++;
    }
    table_for(literals, &literal_table);
    table_for(matches, &match_table);
    blob->size = 0;
    if (!blob_reserve(blob, SEQUENCES_HEADER + 2 * TABLE_BYTES + all * 16 + 64)) return 0;
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
    enum { RLE = 1, FSE = 2 }; /* compression modes */
    unsigned offset_extra = 0, offset_bits = 0;
    if (offset) {
        while (2ULL << offset_bits <= offset + REPEAT_OFFSETS) offset_bits++;
        offset_extra = (unsigned)(offset + REPEAT_OFFSETS) - (1U << offset_bits);
    }
    *at++ = (uint8_t)((literal_table.bits ? FSE : RLE) << 6 | RLE << 4 | (match_table.bits ? FSE : RLE) << 2);
    at += table_write(&literal_table, at);
    *at++ = (uint8_t)offset_bits;
    at += table_write(&match_table, at);
    bits_t out = {at, 0, 0};
    unsigned literal_state = 0, match_state = 0;
    for (size_t number = all; number--;) {
        sequence_t sequence = sequence_at(encoding, number, all);
        if (number + 1 == all) {
            match_state = state_last(&match_table, sequence.match.symbol);
            literal_state = state_last(&literal_table, sequence.literals.symbol);
        } else {
            match_state = state_before(&match_table, &out, sequence.match.symbol, match_state);
            literal_state = state_before(&literal_table, &out, sequence.literals.symbol, literal_state);
        }
        length_put(&out, sequence.literals);
        length_put(&out, sequence.match);
        bits_put(&out, offset_extra, offset_bits);
    }
    bits_put(&out, match_state, match_table.bits);
    bits_put(&out, literal_state, literal_table.bits);
    bits_put(&out, 1, 1);
    blob->size = (size_t)(out.at - blob->data) + (out.waiting > 0);
    encoding->section_messages = offset ? 0 : count;
    return 1;
}

/* Copies ``size`` bytes; faster than memcpy for few bytes. */
static inline uint8_t *copy(uint8_t *to, const uint8_t *from, size_t size) {
    if (size >= 16) {
        for (size_t index = 0; index + 16 < size; index += 16) memcpy(to + index, from + index, 16);
        memcpy(to + size - 16, from + size - 16, 16);
    } else if (size >= 8) {
        memcpy(to, from, 8);
        memcpy(to + size - 8, from + size - 8, 8);
    } else if (size >= 4) {
        memcpy(to, from, 4);
        memcpy(to + size - 4, from + size - 4, 4);
    } else
        for (size_t index = 0; index < size; index++) to[index] = from[index];
    return to + size;
}

/* Whether a fixed bit of adjacent words differs in one of the messages from ``number`` to ``limit``. */
static inline __attribute__((always_inline)) int fixed_bits_differ(const messages_t *all, const word_t *word, size_t words, size_t size,
                                                                   Py_ssize_t number, Py_ssize_t limit) {
    uint64_t changed[4] = {0}, wrong = 0;
    for (; number < limit; number++) {
        const uint8_t *text = word->rows + row_of(all, number) * word->stride;
        for (size_t index = 0; index < words; index++) changed[index] |= load(text + 8 * index, size) ^ word[index].base;
    }
    for (size_t index = 0; index < words; index++) wrong |= changed[index] & word[index].fixed;
    return wrong != 0;
}

/* Whether both are whole words and adjacent. */
static inline int adjacent(const word_t *word, const word_t *next) {
    return word->size == 8 && next->size == 8 && next->rows == word->rows + 8 && next->stride == word->stride;
}

/* Whether one of these messages differs outside the extents. The answer is nearly always no, and this is the fastest way to find out: a few
   words at a time through all messages, with the usual word sizes as compile-time constants (a varint has five bytes). */
static int differs_elsewhere(const encoding_t *encoding, Py_ssize_t number, Py_ssize_t limit) {
    const word_t *word = encoding->words, *end = word + encoding->word_count;
    while (word < end) {
        size_t words = 1;
        while (words < 4 && word + words < end && adjacent(word + words - 1, word + words)) words++;
        if (words == 3) words = 2;
        if (words == 4   ? fixed_bits_differ(encoding->all, word, 4, 8, number, limit)
            : words == 2 ? fixed_bits_differ(encoding->all, word, 2, 8, number, limit)
            : word->size == 8 ? fixed_bits_differ(encoding->all, word, 1, 8, number, limit)
            : word->size == 5 ? fixed_bits_differ(encoding->all, word, 1, 5, number, limit)
                              : fixed_bits_differ(encoding->all, word, 1, word->size, number, limit))
            return 1;
        word += words;
    }
    return 0;
}

/* The first message from ``number`` on that differs outside the extents; ``limit`` if there is none. */
static Py_ssize_t regular_until(const encoding_t *encoding, Py_ssize_t number, Py_ssize_t limit) {
    if (!differs_elsewhere(encoding, number, limit)) return limit;
    while (!differs_elsewhere(encoding, number, number + 1)) number++;
    return number;
}

/* Copies the literals of the messages from ``number`` to ``limit``. */
static void literals_write(const encoding_t *encoding, uint8_t *at, Py_ssize_t number, Py_ssize_t limit) {
    const piece_t *end = encoding->pieces + encoding->piece_count;
    at = copy(at, encoding->all->shared, encoding->before);
    for (; number < limit; number++) {
        Py_ssize_t row = row_of(encoding->all, number);
        for (const piece_t *piece = encoding->pieces; piece < end; piece++) at = copy(at, piece->rows + row * piece->stride, piece->size);
    }
}

/* Writes a block of messages from ``number`` to ``limit``, or until one differs outside the extents; returns the number of the next message,
   or -1 if memory ran out. */
static Py_ssize_t block_write(encoding_t *encoding, blob_t *blob, Py_ssize_t number, Py_ssize_t limit, size_t offset) {
    Py_ssize_t next = regular_until(encoding, number, limit);
    if (next == number) return next;
    size_t size = encoding->before + encoding->copied * (size_t)(next - number);
    if (!blob_reserve(blob, BLOCK_HEADER + LITERALS_HEADER + size)) return -1;
    if (next - number != encoding->section_messages && !sequences_make(encoding, next - number, offset)) return -1;
    uint8_t *start = blob->data + blob->size;
    literals_write(encoding, start + BLOCK_HEADER + LITERALS_HEADER, number, next);
    number_put(start + BLOCK_HEADER, size << 4 | 3 << 2 | RAW, LITERALS_HEADER);
    number_put(start, (LITERALS_HEADER + size + encoding->section.size) << 3 | COMPRESSED << 1, BLOCK_HEADER);
    blob->size += BLOCK_HEADER + LITERALS_HEADER + size;
    return blob_put(blob, encoding->section.data, encoding->section.size) ? next : -1;
}

/* Writes the messages from ``number`` on as raw blocks; 0 if memory ran out. */
static int rest_write(messages_t *all, blob_t *blob, Py_ssize_t number) {
    for (; number < all->count; number++) {
        assemble(all, number);
        if (!raw_write(blob, all->shared, all->width, 0)) return 0;
    }
    return 1;
}

/* Widens the extents to cover the bytes in which message ``number`` differs. */
static void widen(encoding_t *encoding, Py_ssize_t number) {
    const messages_t *all = encoding->all;
    Py_ssize_t row = row_of(all, number);
    for (Py_ssize_t index = 0; index < all->opened; index++) {
        const field_t *field = all->fields + index;
        extent_widen(encoding->extents + index, field_at(field, row), all->shared + field->offset, field->width);
    }
}

/* Writes all messages after the first, which is in ``shared``; 0 if memory ran out. */
static int others_write(encoding_t *encoding, blob_t *blob) {
    messages_t *all = encoding->all;
    Py_ssize_t number = 1;
    size_t offset = all->width;
    if (!extents_learn(all, all->count < LEARN_COUNT ? all->count : LEARN_COUNT, encoding->extents)) return 0;
    int ready = prepare(encoding);
    while (ready && number < all->count) {
        Py_ssize_t left = all->count - number, max_messages = offset ? 1 : encoding->max_messages;
        Py_ssize_t next = block_write(encoding, blob, number, number + (left < max_messages ? left : max_messages), offset);
        if (next < 0) return 0;
        if (next > number)
            offset = 0;
        else {
            widen(encoding, number);
            ready = prepare(encoding);
        }
        number = next;
    }
    return rest_write(all, blob, number);
}

static int messages_write(messages_t *all, blob_t *blob) {
    size_t fields = (size_t)all->opened + 1;
    assemble(all, 0);
    if (all->count == 1 || all->width > MAX_WIDTH) return rest_write(all, blob, 0);
    encoding_t encoding = {.all = all,
                   .extents = malloc(fields * sizeof *encoding.extents),
                   .words = malloc(MAX_WORDS(all) * sizeof *encoding.words),
                   .pieces = malloc(2 * fields * sizeof *encoding.pieces),
                   .literals = malloc(fields * sizeof *encoding.literals),
                   .matches = malloc(fields * sizeof *encoding.matches),
                   .sequences = malloc(fields * sizeof *encoding.sequences)};
    int made = encoding.extents != NULL && encoding.words != NULL && encoding.pieces != NULL && encoding.literals != NULL && encoding.matches != NULL &&
               encoding.sequences != NULL && raw_write(blob, all->shared, all->width, 0) && others_write(&encoding, blob);
    free(encoding.extents);
    free(encoding.words);
    free(encoding.pieces);
    free(encoding.literals);
    free(encoding.matches);
    blob_free(&encoding.section);
    free(encoding.sequences);
    return made;
}

/* Writes the whole frame; 0 if memory ran out. */
static int frame_write(blob_t *blob, const request_t *request) {
    /* The frame header has the content size in eight bytes, and a window of 128 KiB. */
    static const uint8_t HEAD[] = {0x28, 0xB5, 0x2F, 0xFD, 3 << 6, 7 << 3};
    size_t size = request->head.size + request->tail.size;
    for (Py_ssize_t index = 0; index < request->count; index++) size += request->blocks[index].width * (size_t)request->blocks[index].count;
    /* Spans compress to an eighth. Memory that is large enough at first is not copied to grow. */
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
        result = made ? blob_take(&blob) : PyErr_NoMemory();
    }
    request_close(&request);
    blob_free(&blob);
    return result;
}

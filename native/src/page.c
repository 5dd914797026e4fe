/* The records of a GetRecords response as columns. */

#include "find.h"

#include <math.h>

enum { SEQUENCE, ARRIVAL, PAYLOAD, KEY, ENCRYPTION, MEMBERS };

static const struct {
    const char *name;
    size_t size;
} NAMES[MEMBERS] = {
    {"SequenceNumber\"", 15}, {"ApproximateArrivalTimestamp\"", 28}, {"Data\"", 5}, {"PartitionKey\"", 13}, {"EncryptionType\"", 15},
};

/* Payloads are stored in pieces of one size, so that the heap space freed by one page fits the next. */
enum { PIECE = 1024 * 1024 - 64, PADDING = 16, BEYOND = 32 };

/* What a payload contains if it has a trace context in a field of the W3C's name; the middle is a pair of letters that few words have. */
static const uint8_t TRACE[] = "\"traceparent\"";
enum { TRACE_SIZE = sizeof TRACE - 1, TRACE_MIDDLE = 5 };
/* Little enough to be in the processor's cache still, and enough to make short payloads cost no more than long ones. */
enum { SEARCHED_AT_ONCE = 16 * 1024 };

typedef struct {
    blob_t sequences, keys, texts, arrivals, payloads;
    blob_t *pieces;
    Py_ssize_t count;
    Py_ssize_t rows;
    int order[MEMBERS]; /* the order of the members in the last record */
    contains_t contains;
    size_t searched; /* bytes of the last piece that have been searched for TRACE */
    int traced;      /* a payload contains TRACE, or two adjacent ones do together */
} page_t;

/* The member whose name begins at ``at``, after its quote: most likely the one at this ``place`` in the previous record. */
static int member(page_t *page, const text_t *text, int place) {
    size_t left = (size_t)(text->end - text->at);
    int likely = place < MEMBERS ? page->order[place] : MEMBERS;
    if (likely < MEMBERS && left >= NAMES[likely].size && !memcmp(text->at, NAMES[likely].name, NAMES[likely].size)) return likely;
    for (int each = 0; each < MEMBERS; each++)
        if (left >= NAMES[each].size && !memcmp(text->at, NAMES[each].name, NAMES[each].size)) {
            if (place < MEMBERS) page->order[place] = each;
            return each;
        }
    return MEMBERS;
}

static int read_text(page_t *page, text_t *text, blob_t *views) {
    string_t string;
    if (text->at >= text->end || *text->at++ != '"' || !read_string(text, &string)) return 0;
    size_t size = (size_t)(string.close - string.begin), begin = page->texts.size;
    if (string.escaped) {
        if (!unescape(&string, &page->texts)) return 0;
        size = page->texts.size - begin;
        if (size <= INLINE) page->texts.size = begin;
    } else if (size > INLINE) {
        if (!blob_reserve(&page->texts, size)) return 0;
        memcpy(page->texts.data + begin, string.begin, size);
        page->texts.size += size;
    }
    if (page->texts.size > INT32_MAX || !blob_reserve(views, sizeof(view_t))) return 0;
    view_set((view_t *)(views->data + views->size), string.escaped ? page->texts.data + begin : string.begin, size, 0, begin);
    views->size += sizeof(view_t);
    return 1;
}

/* The key of a record without one: an empty text. */
static int no_text(blob_t *views) {
    if (!blob_reserve(views, sizeof(view_t))) return 0;
    memset(views->data + views->size, 0, sizeof(view_t));
    views->size += sizeof(view_t);
    return 1;
}

/* A partition key, or null. */
static int read_key(page_t *page, text_t *text) {
    static const char null[] = "null";
    if ((size_t)(text->end - text->at) < sizeof null - 1 || memcmp(text->at, null, sizeof null - 1)) return read_text(page, text, &page->keys);
    text->at += sizeof null - 1;
    return no_text(&page->keys);
}

/* Searches the payloads that have been added to the last piece. */
static void trace_search(page_t *page, const blob_t *piece) {
    const uint8_t *begin = piece->data + page->searched;
    if (!page->traced)
        page->traced = page->contains(begin, piece->size - page->searched, piece->data + piece->room, TRACE, TRACE_SIZE, TRACE_MIDDLE);
    page->searched = piece->size;
}

/* Ends the last piece. Adds padding, since readers of the payloads read 16 bytes at a time. */
static void piece_end(page_t *page, blob_t *piece) {
    trace_search(page, piece);
    page->searched = 0;
    memset(piece->data + piece->size, 0, PADDING);
    piece->size += PADDING;
}

/* A piece with room for ``size`` bytes and for what base64_decode() writes after them; NULL if memory ran out. ``most``: an upper limit on
   the bytes of all payloads to come. */
static blob_t *piece_for(page_t *page, size_t size, size_t most) {
    blob_t *last = page->count ? page->pieces + page->count - 1 : NULL;
    size += BEYOND;
    most += BEYOND;
    if (last != NULL && last->room - last->size >= size) return last;
    /* Grows by eight pieces. */
    if (page->count % 8 == 0) {
        blob_t *more = realloc(page->pieces, (size_t)(page->count + 8) * sizeof *more);
        if (more == NULL) {
            page->texts.failed = 1;
            return NULL;
        }
        page->pieces = more;
        last = page->count ? more + page->count - 1 : NULL;
    }
    if (last != NULL) piece_end(page, last);
    blob_t *piece = page->pieces + page->count++;
    memset(piece, 0, sizeof *piece);
    return blob_reserve(piece, size > PIECE ? size : most < PIECE ? most : PIECE) ? piece : NULL;
}

static int read_payload(page_t *page, text_t *text) {
    if (text->at >= text->end || *text->at++ != '"') return 0;
    const uint8_t *close = memchr(text->at, '"', (size_t)(text->end - text->at));
    if (close == NULL || !blob_reserve(&page->payloads, sizeof(view_t))) return 0;
    blob_t *piece = piece_for(page, (size_t)(close - text->at) / 4 * 3, (size_t)(text->end - text->at) / 4 * 3);
    if (piece == NULL) return 0;
    size_t begin = piece->size;
    Py_ssize_t size = base64_decode(text->at, (size_t)(close - text->at), piece->data + begin);
    if (size < 0 || begin + (size_t)size > INT32_MAX) return 0;
    view_set((view_t *)(page->payloads.data + page->payloads.size), piece->data + begin, (size_t)size, (uint32_t)(page->count - 1), begin);
    page->payloads.size += sizeof(view_t);
    piece->size += (size_t)size;
    if (piece->size - page->searched >= SEARCHED_AT_ONCE) trace_search(page, piece);
    text->at = close + 1;
    return 1;
}

/* Seconds to milliseconds. More digits are rounded as the Python code rounds them: a product of doubles, half to even. */
static int read_arrival(page_t *page, text_t *text) {
    number_t number;
    double seconds, rounded;
    if (!read_number(text, &number) || !number.exact || !number_real(&number, &seconds)) return 0;
    if (!(seconds > -1e11 && seconds < 1e11) || !blob_reserve(&page->arrivals, sizeof(int64_t))) return 0;
    rounded = rint(seconds * 1000);
    if (fabs(fabs(seconds * 1000 - rounded) - 0.5) < 1e-3) return 0;
    int64_t value = (int64_t)rounded;
    memcpy(page->arrivals.data + page->arrivals.size, &value, sizeof value);
    page->arrivals.size += sizeof value;
    return 1;
}

static void all_blanks(text_t *text) {
    while (text->at < text->end && (*text->at == ' ' || (*text->at >= '\t' && *text->at <= '\r' && *text->at != 11 && *text->at != 12))) text->at++;
}

static int read_record(page_t *page, text_t *text) {
    string_t name;
    unsigned seen = 0;
    for (int place = 0;; place++) {
        int found = MEMBERS, good = 0;
        all_blanks(text);
        if (text->at >= text->end || *text->at++ != '"') return 0;
        found = member(page, text, place);
        if (found < MEMBERS) text->at += NAMES[found].size;
        else if (!read_string(text, &name) || name.escaped) return 0;
        all_blanks(text);
        if (text->at >= text->end || *text->at++ != ':') return 0;
        all_blanks(text);
        if (found < MEMBERS && seen >> found & 1) return 0;
        seen |= 1u << found;
        switch (found) {
        case SEQUENCE: good = read_text(page, text, &page->sequences); break;
        case KEY: good = read_key(page, text); break;
        case PAYLOAD: good = read_payload(page, text); break;
        case ARRIVAL: good = read_arrival(page, text); break;
        default: good = skip_value(text, 3);
        }
        if (!good) return 0;
        all_blanks(text);
        if (text->at >= text->end) return 0;
        if (*text->at == '}') break;
        if (*text->at++ != ',') return 0;
    }
    text->at++;
    page->rows++;
    const unsigned needed = 1u << SEQUENCE | 1u << ARRIVAL | 1u << PAYLOAD;
    return (seen & needed) == needed && (seen >> KEY & 1 || no_text(&page->keys));
}

/* Reads the records after ``[`` up to ``]``. */
static int read_records(page_t *page, text_t *text) {
    all_blanks(text);
    if (text->at < text->end && *text->at == ']') return 1;
    for (;;) {
        all_blanks(text);
        if (text->at >= text->end || *text->at++ != '{' || !read_record(page, text)) return 0;
        all_blanks(text);
        if (text->at >= text->end) return 0;
        if (*text->at == ']') return 1;
        if (*text->at++ != ',') return 0;
    }
}

/* Reads the response and finds where its records begin and end; 0 if it is not of the usual form. */
static int read_answer(page_t *page, text_t text, size_t *begin, size_t *end) {
    static const char records[] = "Records\"";
    const uint8_t *start = text.at;
    string_t name;
    int found = 0;
    all_blanks(&text);
    if (text.at >= text.end || *text.at++ != '{') return 0;
    for (;;) {
        int here;
        all_blanks(&text);
        if (text.at >= text.end || *text.at++ != '"') return 0;
        here = (size_t)(text.end - text.at) >= sizeof records - 1 && !memcmp(text.at, records, sizeof records - 1);
        if (!read_string(&text, &name) || name.escaped) return 0;
        all_blanks(&text);
        if (text.at >= text.end || *text.at++ != ':') return 0;
        all_blanks(&text);
        if (here) {
            if (found++ || text.at >= text.end || *text.at++ != '[') return 0;
            *begin = (size_t)(text.at - start);
            if (!read_records(page, &text)) return 0;
            *end = (size_t)(text.at - start);
            text.at++;
        } else if (!skip_value(&text, 1)) return 0;
        all_blanks(&text);
        if (text.at >= text.end) return 0;
        if (*text.at == '}') break;
        if (*text.at++ != ',') return 0;
    }
    text.at++;
    all_blanks(&text);
    return found && text.at == text.end;
}

/* Facts that are cheap to collect while the response is read. */
typedef struct {
    int rising; /* all sequence numbers have the same length and each is greater than the previous one */
    Py_ssize_t marked; /* payloads that begin like KPL aggregates */
    Py_ssize_t bytes; /* of all payloads */
} seen_t;

static const uint8_t *text_of(const view_t *view, const blob_t *texts) {
    return view->size <= INLINE ? (const uint8_t *)view + sizeof view->size : texts->data + view->offset;
}

static seen_t look(const page_t *page) {
    static const uint8_t MAGIC[] = {0xF3, 0x89, 0x9A, 0xC2};
    const view_t *sequences = (const view_t *)page->sequences.data, *payloads = (const view_t *)page->payloads.data;
    seen_t seen = {1, 0, 0};
    for (Py_ssize_t row = 0; row < page->rows; row++) {
        const view_t *now = sequences + row, *before = sequences + (row ? row - 1 : 0);
        seen.rising &= now->size == before->size && (!row || memcmp(text_of(before, &page->texts), text_of(now, &page->texts), now->size) < 0);
        seen.marked += payloads[row].size >= sizeof MAGIC && !memcmp(payloads[row].prefix, MAGIC, sizeof MAGIC);
        seen.bytes += payloads[row].size;
    }
    return seen;
}

/* Hands the pieces to Python, as a tuple. */
static PyObject *take_pieces(page_t *page) {
    PyObject *pieces = PyTuple_New(page->count);
    for (Py_ssize_t each = 0; pieces != NULL && each < page->count; each++) {
        PyObject *piece = blob_take(page->pieces + each);
        if (piece == NULL || PyTuple_SetItem(pieces, each, piece)) Py_CLEAR(pieces);
    }
    return pieces;
}

PyObject *kernel_page(PyObject *module, PyObject *body) {
    (void)module;
    enum { PARTS = 6 };
    Py_buffer buffer;
    page_t page;
    PyObject *made = NULL, *parts[PARTS] = {0};
    size_t begin = 0, end = 0;
    seen_t seen = {0, 0, 0};
    int good;
    memset(&page, 0, sizeof page);
    page.contains = contains_best();
    for (int place = 0; place < MEMBERS; place++) page.order[place] = MEMBERS;
    if (PyObject_GetBuffer(body, &buffer, PyBUF_SIMPLE)) return NULL;
    const uint8_t *text = buffer.buf;
    Py_BEGIN_ALLOW_THREADS;
    good = read_answer(&page, (text_t){text, text + buffer.len, text + buffer.len}, &begin, &end);
    if (good) {
        seen = look(&page);
        if (page.count) piece_end(&page, page.pieces + page.count - 1);
    }
    Py_END_ALLOW_THREADS;
    PyBuffer_Release(&buffer);
    blob_t *blobs[PARTS - 1] = {&page.sequences, &page.keys, &page.texts, &page.arrivals, &page.payloads};
    if (good) {
        for (int part = 0; part < PARTS - 1; part++)
            if ((parts[part] = blob_take(blobs[part])) == NULL) good = -1;
        if ((parts[PARTS - 1] = take_pieces(&page)) == NULL) good = -1;
        if (good > 0)
            made = Py_BuildValue("nnn(inni)OOOOOO", (Py_ssize_t)begin, (Py_ssize_t)end, page.rows, seen.rising, seen.marked, seen.bytes, page.traced, parts[0],
                                 parts[1], parts[2], parts[3], parts[4], parts[5]);
        for (int part = 0; part < PARTS; part++) Py_XDECREF(parts[part]);
    }
    int failed = 0;
    for (int part = 0; part < PARTS - 1; part++) {
        failed |= blobs[part]->failed;
        blob_free(blobs[part]);
    }
    for (Py_ssize_t each = 0; each < page.count; each++) {
        failed |= page.pieces[each].failed;
        blob_free(page.pieces + each);
    }
    free(page.pieces);
    if (good < 0 || made != NULL) return made;
    if (failed) return PyErr_NoMemory();
    Py_RETURN_NONE;
}

/* Lines of separated values to columns. */

#include "plan.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

/* Limits of the csv module, and of the kernel. */
enum { LONGEST_FIELD = 131072, LANE = 16, MAX_WORDS = 64 };

typedef struct {
    const uint8_t *text;
    Py_ssize_t size;
} word_t;

typedef struct {
    const plan_t *plan;
    table_t table;
    int separator, quote;
    word_t header; /* without text if lines have the order of the columns */
    Py_ssize_t *places; /* for each field of a line, its column, or -1 */
    Py_ssize_t fields;
    word_t words[MAX_WORDS]; /* the words for null */
    Py_ssize_t count;
} run_t;

/* Finds the first separator, quote or line end from ``at`` on; sets ``high`` if anything before it is not ASCII. */
static const uint8_t *field_end(const run_t *run, const text_t *text, const uint8_t *at, unsigned *high) {
#if defined(__SSE2__)
    const __m128i separator = _mm_set1_epi8((char)run->separator), quote = _mm_set1_epi8((char)run->quote);
    while (text->limit - at >= LANE) {
        __m128i piece = _mm_loadu_si128((const __m128i *)at);
        __m128i ends = _mm_or_si128(_mm_cmpeq_epi8(piece, _mm_set1_epi8('\n')), _mm_cmpeq_epi8(piece, _mm_set1_epi8('\r')));
        __m128i marks = _mm_or_si128(_mm_cmpeq_epi8(piece, separator), _mm_cmpeq_epi8(piece, quote));
        unsigned stops = (unsigned)_mm_movemask_epi8(_mm_or_si128(ends, marks)), highs = (unsigned)_mm_movemask_epi8(piece);
        unsigned whole = stops ? (unsigned)__builtin_ctz(stops) : LANE;
        *high |= highs & ((1u << whole) - 1);
        at += whole;
        if (stops || at >= text->end) return at < text->end ? at : text->end;
    }
#endif
    for (; at < text->end && *at != run->separator && *at != run->quote && *at != '\n' && *at != '\r'; at++) *high |= *at & 0x80;
    return at;
}

static int is_null(const run_t *run, const node_t *node, const uint8_t *text, size_t size) {
    for (Py_ssize_t at = 0; at < run->count; at++)
        if ((size_t)run->words[at].size == size && !memcmp(run->words[at].text, text, size))
            return size || node->kind != TEXT || node->required != REQUIRED;
    return 0;
}

static int put_flag(uint8_t *values, int64_t row, const uint8_t *text, size_t size) {
    int yes = size == 4;
    const char *word = yes ? "true" : "false";
    if (size != 4 && size != 5) return 0;
    for (size_t at = 0; at < size; at++)
        if ((text[at] | 32) != word[at]) return 0;
    values[row >> 3] |= (uint8_t)(yes << (row & 7));
    return 1;
}

/* Unlike in JSON, whole numbers may have leading zeros. */
static int put_digits(const node_t *node, uint8_t *values, int64_t row, const uint8_t *at, const uint8_t *end) {
    number_t number;
    int negative = 0;
    if (IS_WHOLE(node->kind)) {
        negative = at < end && *at == '-';
        at += negative;
        while (end - at > 1 && *at == '0') at++;
        if (at < end && *at == '-') return 0;
    }
    text_t text = {at, end, end};
    if (!read_number(&text, &number) || text.at != end) return 0;
    number.negative |= negative;
    return put_number(node, values, row, &number);
}

/* Reads a value of column ``at`` from bytes of the record or, if ``aside``, from the end of the side buffer, where text stays. */
static int put_field(run_t *run, Py_ssize_t at, int64_t row, const uint8_t *text, size_t size, int aside) {
    const node_t *node = run->plan->nodes + at;
    column_t *column = run->table.columns + at;
    uint8_t *values = column->values.data;
    view_t *view = (view_t *)values + row;
    string_t string = {text, text + size, 0};
    if (is_null(run, node, text, size)) return node->required != REQUIRED;
    switch (node->kind) {
    case TEXT:
        if (!aside) put_part(&run->table, view, text, size);
        else view_set(view, text, size, run->table.side_buffer, (size_t)(text - run->table.side.data));
        break;
    case STAMP:
        if (!read_stamp(text, size, (int64_t *)values + row)) return 0;
        break;
    case DAY:
        if (size != 10 || !read_day(text, size, (int32_t *)values + row)) return 0;
        break;
    case BINARY:
        if (aside || !put_bytes(&run->table, view, &string)) return 0;
        break;
    case FLAG:
        if (!put_flag(values, row, text, size)) return 0;
        break;
    default:
        if (node->kind >= RAW && node->kind != DECIMAL) return 0;
        if (!put_digits(node, values, row, text, text + size)) return 0;
    }
    set_valid(column, row);
    return 1;
}

/* Reads a field whose opening quote is at ``*at``, up to and including the closing one. */
static int put_quoted(run_t *run, const text_t *text, const uint8_t **at, Py_ssize_t column, int64_t row, unsigned *high) {
    const uint8_t *begin = *at + 1, *close = begin;
    table_t *table = &run->table;
    size_t doubled = 0, kept = table->side.size;
    for (;; close++) {
        if (close >= text->end) return 0;
        *high |= *close & 0x80;
        if (*close != run->quote) continue;
        if (close + 1 >= text->end || close[1] != run->quote) break;
        close++;
        doubled++;
    }
    *at = close + 1;
    if (close - begin > LONGEST_FIELD) return 0;
    if (column < 0) return 1;
    if (!doubled) return put_field(run, column, row, begin, (size_t)(close - begin), 0);
    size_t size = (size_t)(close - begin) - doubled;
    if (kept + size > INT32_MAX) return 0;
    if (!blob_reserve(&table->side, size)) return !(table->failed = 1);
    uint8_t *to = table->side.data + kept;
    for (const uint8_t *from = begin; from < close; from += 1 + (*from == run->quote)) *to++ = *from;
    table->side.size += size;
    if (!put_field(run, column, row, table->side.data + kept, size, 1)) return 0;
    if (run->plan->nodes[column].kind != TEXT || size <= INLINE) table->side.size = kept;
    return 1;
}

/* Reads one line to its end; it must have the right number of fields. */
static int read_line(run_t *run, text_t *text, int64_t row, unsigned *high) {
    Py_ssize_t first = run->plan->nodes[run->plan->nodes[0].first].first;
    for (Py_ssize_t field = 0; field < run->fields; field++) {
        Py_ssize_t column = run->places[field] < 0 ? -1 : first + run->places[field];
        const uint8_t *at = text->at;
        if (at < text->end && *at == run->quote) {
            if (!put_quoted(run, text, &at, column, row, high)) return 0;
        } else {
            at = field_end(run, text, at, high);
            size_t size = (size_t)(at - text->at);
            if (size > LONGEST_FIELD || (column >= 0 && !put_field(run, column, row, text->at, size, 0))) return 0;
        }
        text->at = at;
        if (at >= text->end || *at != run->separator) return field + 1 == run->fields && (at >= text->end || *at == '\n' || *at == '\r');
        text->at++;
    }
    return 0;
}

static int read_header(const run_t *run, text_t *text) {
    size_t size = (size_t)run->header.size;
    if (run->header.text == NULL) return 1;
    if ((size_t)(text->end - text->at) < size || memcmp(text->at, run->header.text, size)) return 0;
    text->at += size;
    return text->at == text->end || *text->at == '\n' || *text->at == '\r';
}

static int read_record(run_t *run, text_t *text, int64_t record) {
    Py_ssize_t item = run->plan->nodes[0].first;
    const uint8_t *begin = text->at;
    unsigned high = 0;
    int found = run->header.text != NULL;
    if (!read_header(run, text)) return 0;
    for (;; found = 1) {
        while (text->at < text->end && (*text->at == '\n' || *text->at == '\r')) text->at++;
        if (text->at == text->end) break;
        int64_t row = item_begin(&run->table, 0);
        if (row < 0 || !read_line(run, text, row, &high)) return 0;
        set_valid(run->table.columns + item, row);
        item_end(&run->table, 0, row);
    }
    set_valid(run->table.columns, record);
    return found && (!high || is_utf8(begin, text->end));
}

static int read_words(run_t *run, PyObject *words) {
    run->count = PyTuple_Check(words) ? PyTuple_Size(words) : -1;
    if (run->count < 0 || run->count > MAX_WORDS) {
        PyErr_Format(PyExc_ValueError, "words for null must be a tuple of at most %d", MAX_WORDS);
        return 0;
    }
    for (Py_ssize_t at = 0; at < run->count; at++)
        if (PyBytes_AsStringAndSize(PyTuple_GetItem(words, at), (char **)&run->words[at].text, &run->words[at].size)) return 0;
    return 1;
}

static int read_places(run_t *run, PyObject *places) {
    const node_t *root = run->plan->nodes;
    run->fields = PyTuple_Check(places) ? PyTuple_Size(places) : 0;
    run->places = calloc((size_t)run->fields + 1, sizeof *run->places);
    if (run->places == NULL) return PyErr_NoMemory() != NULL;
    for (Py_ssize_t at = 0; at < run->fields; at++) {
        Py_ssize_t place = run->places[at] = PyLong_AsSsize_t(PyTuple_GetItem(places, at));
        if (PyErr_Occurred()) return 0;
        if (root->kind == LIST && place >= -1 && place < root[root->first].count) continue;
        PyErr_SetString(PyExc_ValueError, "a field's place must be -1 or a column of the plan, whose root must be a list");
        return 0;
    }
    return 1;
}

static int decode_rows(void *of, const views_t *records) {
    run_t *run = of;
    for (Py_ssize_t row = 0; row < records->rows && !run->table.failed; row++) {
        text_t text;
        row_begin(&run->table, records, row, &text);
        row_end(&run->table, row, read_record(run, &text, row));
    }
    return !run->table.failed;
}

PyObject *kernel_separated(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *capsule, *views, *buffers, *places, *words, *made = NULL;
    run_t *run = calloc(1, sizeof *run);
    if (run == NULL) return PyErr_NoMemory();
    if (PyArg_ParseTuple(args, "OOOiiz#OO", &capsule, &views, &buffers, &run->separator, &run->quote, (const char **)&run->header.text,
                         &run->header.size, &places, &words) &&
        (run->plan = PyCapsule_GetPointer(capsule, PLAN_NAME)) != NULL && read_words(run, words) && read_places(run, places)) {
        if (run->fields) made = table_made(&run->table, run->plan->forms, run->plan->count, views, buffers, decode_rows, run);
        else PyErr_SetString(PyExc_ValueError, "a line must have at least one field");
    }
    free(run->places);
    free(run);
    return made;
}

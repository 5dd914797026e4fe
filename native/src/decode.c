/* JSON records to columns. */

#include "plan.h"

#include <math.h>

/* The rows of one node so far. All bits and values that nobody set are zero: null. */
typedef struct {
    blob_t values;   /* views, numbers or bits; of a list the ends of its rows, 64 bits each, behind a zero */
    blob_t validity; /* a bit per row, set where there is a value */
    int64_t rows;    /* of the items of a list: how many there are */
    int64_t room;    /* of the items of a list: how many there is memory for */
    int64_t valid;
} column_t;

typedef struct {
    const plan_t *plan;
    column_t *columns;
    Py_ssize_t *follow; /* which node's member was read after that of this node the last time; for an object, which one first */
    blob_t side;
    uint32_t side_buffer;
    uint32_t record_buffer;
    const uint8_t *buffer; /* where it begins; of a record that lies in its view, which is too short for values that need one, the record */
    int failed;
} run_t;

static const size_t WIDTHS[KINDS] = {16, 0, 1, 2, 4, 8, 1, 2, 4, 8, 4, 8, 8, 8, 4, 16, 16, 16, 8, 0};

/* Makes room for ``rows`` rows in a column and in those that have as many. */
static int widen(run_t *run, Py_ssize_t at, int64_t rows) {
    const node_t *node = run->plan->nodes + at;
    column_t *column = run->columns + at;
    size_t bits = (size_t)(rows + 7) / 8;
    size_t bytes = node->kind == FLAG ? bits : node->kind == LIST ? ((size_t)rows + 1) * 8 : (size_t)rows * WIDTHS[node->kind];
    if (!blob_resize(&column->validity, bits) || !blob_resize(&column->values, bytes)) return !(run->failed = 1);
    if (node->kind == OBJECT)
        for (int child = 0; child < node->count; child++)
            if (!widen(run, node->first + child, rows)) return 0;
    return 1;
}

static void set_valid(column_t *column, int64_t row) {
    column->validity.data[row >> 3] |= (uint8_t)(1u << (row & 7));
    column->valid++;
}

/* Ends row ``row`` of every list that has a row wherever the node ``at`` has one. */
static void end_lists(run_t *run, Py_ssize_t at, int64_t row) {
    const node_t *node = run->plan->nodes + at;
    if (node->kind == LIST) ((int64_t *)run->columns[at].values.data)[row + 1] = run->columns[node->first].rows;
    else if (node->kind == OBJECT)
        for (int child = 0; child < node->count; child++) end_lists(run, node->first + child, row);
}

static int read_value(run_t *run, text_t *text, Py_ssize_t at, int64_t row, int depth);

static int is_name(const text_t *text, const node_t *child) {
    if (text->limit - text->at >= 8) {
        uint64_t head;
        memcpy(&head, text->at, sizeof head);
        if ((head & child->mask) != child->head) return 0;
    }
    return (size_t)(text->end - text->at) >= child->size && !memcmp(text->at, child->token, child->size);
}

/* The child of the object ``at`` whose name begins here, behind its quote, or 0. Producers write members in one order: what followed the
   member before, the last time, is tried first. */
static Py_ssize_t named(run_t *run, const text_t *text, Py_ssize_t at, Py_ssize_t before) {
    const node_t *nodes = run->plan->nodes, *node = nodes + at;
    Py_ssize_t likely = run->follow[before];
    if (likely && is_name(text, nodes + likely)) return likely;
    for (Py_ssize_t child = node->first; child < node->first + node->count; child++)
        if (is_name(text, nodes + child)) return run->follow[before] = child;
    return 0;
}

/* The members of an object whose brace has been read, up to behind the closing one. */
static int read_members(run_t *run, text_t *text, Py_ssize_t at, int64_t row, int depth) {
    const node_t *nodes = run->plan->nodes, *node = nodes + at;
    uint64_t seen[MAX_FIELDS / 64 + 1];
    string_t name;
    Py_ssize_t before = at;
    memset(seen, 0, sizeof(uint64_t) * (size_t)(node->count / 64 + 1));
    blanks(text);
    if (text->at < text->end && *text->at == '}') text->at++;
    else
        for (;;) {
            blanks(text);
            if (text->at >= text->end || *text->at++ != '"') return 0;
            Py_ssize_t child = named(run, text, at, before);
            if (child) text->at += nodes[child].size;
            /* A name that is escaped may be that of a column. */
            else if (node->strict || !read_string(text, &name) || name.escaped) return 0;
            blanks(text);
            if (text->at >= text->end || *text->at++ != ':') return 0;
            blanks(text);
            if (child) {
                Py_ssize_t place = child - node->first;
                if (seen[place / 64] >> (place % 64) & 1) return 0;
                seen[place / 64] |= 1ULL << (place % 64);
                if (!read_value(run, text, child, row, depth + 1)) return 0;
                before = child;
            } else if (!skip_value(text, depth + 1)) return 0;
            blanks(text);
            if (text->at >= text->end) return 0;
            if (*text->at == '}') {
                text->at++;
                break;
            }
            if (*text->at++ != ',') return 0;
        }
    for (int child = 0; child < node->count; child++)
        if (nodes[node->first + child].required && !(seen[child / 64] >> (child % 64) & 1)) return 0;
    return 1;
}

static int read_items(run_t *run, text_t *text, Py_ssize_t at, int depth) {
    const node_t *node = run->plan->nodes + at;
    column_t *item = run->columns + node->first;
    blanks(text);
    if (text->at < text->end && *text->at == ']') {
        text->at++;
        return 1;
    }
    for (;;) {
        int64_t row = item->rows;
        if (row == item->room) {
            item->room = row + row / 2 + 16;
            if (!widen(run, node->first, item->room)) return 0;
        }
        item->rows++;
        blanks(text);
        if (!read_value(run, text, node->first, row, depth + 1)) return 0;
        end_lists(run, node->first, row);
        blanks(text);
        if (text->at >= text->end) return 0;
        if (*text->at == ']') {
            text->at++;
            return 1;
        }
        if (*text->at++ != ',') return 0;
    }
}

static int put_text(run_t *run, view_t *view, const string_t *string) {
    size_t size = (size_t)(string->close - string->begin), begin = run->side.size;
    if (!string->escaped) {
        view_set(view, string->begin, size, run->record_buffer, (size_t)(string->begin - run->buffer));
        return 1;
    }
    if (!unescape(string, &run->side)) return !(run->failed = 1);
    size = run->side.size - begin;
    if (run->side.size > INT32_MAX) return 0;
    view_set(view, run->side.data + begin, size, run->side_buffer, begin);
    if (size <= INLINE) run->side.size = begin;
    return 1;
}

static int put_bytes(run_t *run, view_t *view, const string_t *string) {
    size_t size = (size_t)(string->close - string->begin), begin = run->side.size;
    if (string->escaped || begin + size > INT32_MAX) return 0;
    if (!blob_reserve(&run->side, size / 4 * 3 + 64)) return !(run->failed = 1);
    Py_ssize_t made = base64_decode(string->begin, size, run->side.data + begin);
    if (made < 0) return 0;
    view_set(view, run->side.data + begin, (size_t)made, run->side_buffer, begin);
    if (made > INLINE) run->side.size += (size_t)made;
    return 1;
}

static int put_integer(const node_t *node, uint8_t *values, int64_t row, const number_t *number) {
    static const uint64_t most[KINDS] = {[INT8] = INT8_MAX, [INT16] = INT16_MAX, [INT32] = INT32_MAX, [INT64] = INT64_MAX,
                                         [UINT8] = UINT8_MAX, [UINT16] = UINT16_MAX, [UINT32] = UINT32_MAX, [UINT64] = UINT64_MAX,
                                         [EPOCH] = INT64_MAX};
    int is_signed = node->kind <= INT64 || node->kind == EPOCH;
    if (!number->whole || !number->exact || (number->negative && (!number->digits || !is_signed))) return 0;
    /* The least number has no positive counterpart and is left out. */
    if (number->digits > most[node->kind]) return 0;
    int64_t value = number->negative ? -(int64_t)number->digits : (int64_t)number->digits;
    if (node->kind == EPOCH) {
        if (value > 253402300799999999 / node->unit || value < -62135596800000000 / node->unit) return 0;
        value *= node->unit;
    }
    size_t width = WIDTHS[node->kind];
    memcpy(values + (size_t)row * width, &value, width);
    return 1;
}

/* Digits as they stand, no exponent, and none of them behind what the scale has room for. */
static int put_decimal(const node_t *node, uint8_t *values, int64_t row, const number_t *number) {
#ifdef __SIZEOF_INT128__
    int precision = (int)(node->unit >> 8), shift = (int)(node->unit & 255) + number->exponent;
    unsigned __int128 value = number->digits, limit = 1;
    if (!number->exact || shift < 0 || memchr(number->begin, 'e', (size_t)(number->end - number->begin)) ||
        memchr(number->begin, 'E', (size_t)(number->end - number->begin)))
        return 0;
    for (; precision > shift; precision--) limit *= 10;
    /* As many digits as the precision has, less those that the shift adds, so nothing overflows below. */
    if (value >= limit) return 0;
    for (; shift; shift--) value *= 10;
    __int128 whole = number->negative ? -(__int128)value : (__int128)value;
    memcpy(values + (size_t)row * sizeof whole, &whole, sizeof whole);
    return 1;
#else
    (void)node, (void)values, (void)row, (void)number;
    return 0;
#endif
}

static int read_text_value(run_t *run, text_t *text, const node_t *node, uint8_t *values, int64_t row) {
    string_t string;
    view_t *view = (view_t *)values + row;
    if (*text->at != '"') return 0;
    text->at++;
    if (!read_string(text, &string)) return 0;
    if (node->kind == TEXT) return put_text(run, view, &string);
    if (node->kind == BINARY) return put_bytes(run, view, &string);
    size_t size = (size_t)(string.close - string.begin);
    if (string.escaped) return 0;
    if (node->kind == STAMP) return read_stamp(string.begin, size, (int64_t *)values + row);
    return size == 10 && read_day(string.begin, size, (int32_t *)values + row);
}

static int read_scalar(run_t *run, text_t *text, const node_t *node, uint8_t *values, int64_t row) {
    number_t number;
    double real;
    switch (node->kind) {
    case TEXT: case BINARY: case STAMP: case DAY:
        return read_text_value(run, text, node, values, row);
    case RAW: {
        string_t raw = {text->at, NULL, 0};
        if (!skip_value(text, 2)) return 0;
        raw.close = text->at;
        return put_text(run, (view_t *)values + row, &raw);
    }
    case FLAG:
        if (*text->at == 't') {
            values[row >> 3] |= (uint8_t)(1u << (row & 7));
            return literal(text, "true", 4);
        }
        return literal(text, "false", 5);
    case FLOAT32: case FLOAT64:
        if (!read_number(text, &number) || !number_real(&number, &real)) return 0;
        if (node->kind == FLOAT64) ((double *)values)[row] = real;
        else {
            ((float *)values)[row] = (float)real;
            if (!isfinite((float)real)) return 0;
        }
        return 1;
    case DECIMAL:
        return read_number(text, &number) && put_decimal(node, values, row, &number);
    default:
        return read_number(text, &number) && put_integer(node, values, row, &number);
    }
}

/* One value into row ``row``; the row must still be zero. */
static int read_value(run_t *run, text_t *text, Py_ssize_t at, int64_t row, int depth) {
    const node_t *node = run->plan->nodes + at;
    column_t *column = run->columns + at;
    if (text->at >= text->end || depth > MAX_DEPTH) return 0;
    if (*text->at == 'n') return !node->required && literal(text, "null", 4);
    if (node->kind == OBJECT) {
        if (*text->at++ != '{' || !read_members(run, text, at, row, depth)) return 0;
    } else if (node->kind == LIST) {
        if (*text->at++ != '[' || !read_items(run, text, at, depth)) return 0;
    } else if (!read_scalar(run, text, node, column->values.data, row)) return 0;
    /* Items of a list inside may have moved the columns' memory, but not the columns. */
    set_valid(column, row);
    return 1;
}

/* Makes bits ``from`` to ``to`` zero; how many were set. */
static int64_t clear_bits(uint8_t *bits, int64_t from, int64_t to) {
    int64_t set = 0;
    for (int64_t bit = from; bit < to; bit++) {
        set += bits[bit >> 3] >> (bit & 7) & 1;
        bits[bit >> 3] &= (uint8_t)~(1u << (bit & 7));
    }
    return set;
}

/* Takes back rows ``from`` to ``to`` in every column with as many rows as the node ``at``. ``items``: rows of each list's items to keep. */
static void take_back(run_t *run, Py_ssize_t at, int64_t from, int64_t to, const int64_t *items) {
    const node_t *node = run->plan->nodes + at;
    column_t *column = run->columns + at;
    size_t width = WIDTHS[node->kind];
    column->valid -= clear_bits(column->validity.data, from, to);
    if (node->kind == FLAG) clear_bits(column->values.data, from, to);
    else if (node->kind == LIST) memset(column->values.data + (size_t)(from + 1) * width, 0, (size_t)(to - from) * width);
    else if (width) memset(column->values.data + (size_t)from * width, 0, (size_t)(to - from) * width);
    if (node->kind == OBJECT)
        for (int child = 0; child < node->count; child++) take_back(run, node->first + child, from, to, items);
    if (node->kind == LIST && run->columns[node->first].rows > items[node->first]) {
        int64_t kept = items[node->first], had = run->columns[node->first].rows;
        run->columns[node->first].rows = kept;
        take_back(run, node->first, kept, had, items);
    }
}

static int decode_rows(run_t *run, const views_t *records, uint8_t *bad, Py_ssize_t *wrong) {
    Py_ssize_t count = run->plan->count;
    int64_t *items = calloc((size_t)count, sizeof *items);
    if (items == NULL || !widen(run, 0, records->rows)) {
        free(items);
        return 0;
    }
    for (Py_ssize_t row = 0; row < records->rows; row++) {
        const view_t *view = records->first + row;
        size_t size;
        text_t text;
        text.at = views_at(records, row, &size, &text.limit);
        text.end = text.at + size;
        run->record_buffer = view->size > INLINE ? view->buffer : 0;
        run->buffer = view->size > INLINE ? records->buffers[view->buffer].buf : text.at;
        for (Py_ssize_t index = 0; index < count; index++) items[index] = run->columns[index].rows;
        size_t side = run->side.size;
        blanks(&text);
        int good = text.at < text.end && *text.at++ == '{' && read_members(run, &text, 0, row, 1);
        if (good) {
            blanks(&text);
            good = text.at == text.end;
        }
        if (run->failed) break;
        if (!good) {
            bad[row] = 1;
            ++*wrong;
            take_back(run, 0, row, row + 1, items);
            run->side.size = side;
        }
        end_lists(run, 0, row);
    }
    free(items);
    return !run->failed;
}

static PyObject *column_made(run_t *run, Py_ssize_t at, int64_t rows) {
    const node_t *node = run->plan->nodes + at;
    column_t *column = run->columns + at;
    int64_t items = node->kind == LIST ? run->columns[node->first].rows : rows, nulls = rows - column->valid;
    PyObject *values = blob_take(&column->values), *validity = NULL, *children = NULL, *made = NULL;
    if (nulls) validity = blob_take(&column->validity);
    else {
        validity = Py_None;
        Py_INCREF(validity);
    }
    if (values != NULL && validity != NULL && (children = PyTuple_New(node->count)) != NULL) {
        int good = 1;
        for (int child = 0; child < node->count && good; child++) {
            PyObject *inner = column_made(run, node->first + child, items);
            good = inner != NULL && !PyTuple_SetItem(children, child, inner);
        }
        if (good) made = Py_BuildValue("LLOOO", (long long)rows, (long long)nulls, validity, values, children);
    }
    Py_XDECREF(values);
    Py_XDECREF(validity);
    Py_XDECREF(children);
    return made;
}

PyObject *kernel_decode(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    (void)module;
    views_t records;
    blob_t bad = {0};
    run_t run;
    Py_ssize_t wrong = 0;
    PyObject *made = NULL;
    if (count != 3) {
        PyErr_SetString(PyExc_TypeError, "decode takes a plan, views and buffers");
        return NULL;
    }
    memset(&run, 0, sizeof run);
    run.plan = PyCapsule_GetPointer(args[0], PLAN_NAME);
    if (run.plan == NULL || !views_open(&records, args[1], args[2])) return NULL;
    run.columns = calloc((size_t)run.plan->count, sizeof *run.columns);
    run.follow = calloc((size_t)run.plan->count, sizeof *run.follow);
    run.side_buffer = (uint32_t)records.count;
    int good = run.columns != NULL && run.follow != NULL && blob_resize(&bad, (size_t)records.rows + 1);
    Py_ssize_t rows = records.rows;
    Py_BEGIN_ALLOW_THREADS;
    good = good && decode_rows(&run, &records, bad.data, &wrong);
    Py_END_ALLOW_THREADS;
    views_close(&records);
    if (good) {
        bad.size = (size_t)rows;
        PyObject *marks = blob_take(&bad), *side = blob_take(&run.side), *columns = column_made(&run, 0, rows);
        if (marks != NULL && side != NULL && columns != NULL) made = Py_BuildValue("OnOO", marks, wrong, side, columns);
        Py_XDECREF(marks);
        Py_XDECREF(side);
        Py_XDECREF(columns);
    } else PyErr_NoMemory();
    for (Py_ssize_t index = 0; run.columns != NULL && index < run.plan->count; index++) {
        blob_free(&run.columns[index].values);
        blob_free(&run.columns[index].validity);
    }
    free(run.columns);
    free(run.follow);
    blob_free(&run.side);
    blob_free(&bad);
    return made;
}

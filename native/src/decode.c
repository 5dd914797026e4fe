/* JSON records to columns. */

#include "plan.h"

#include <math.h>

typedef struct {
    const plan_t *plan;
    table_t table;
    blob_t rest; /* members of an object that no column names, as text, and their names */
    names_t names;
    uint64_t seen;
    Py_ssize_t *follow; /* by node, the one whose member followed its own last time; after these, by object, its first member's */
} run_t;

static int read_value(run_t *run, text_t *text, Py_ssize_t at, int64_t row, int depth);

static int is_name(const text_t *text, const node_t *child) {
    if (text->limit - text->at >= 8) {
        uint64_t head;
        memcpy(&head, text->at, sizeof head);
        if ((head & child->mask) != child->head) return 0;
        if (child->size <= sizeof head) return (size_t)(text->end - text->at) >= child->size;
    }
    return (size_t)(text->end - text->at) >= child->size && same_bytes(text->at, child->token, child->size);
}

/* The child of the object ``at`` whose name begins here, after its quote, or 0. Producers write members in a fixed order, so the member that
   followed the previous one last time is tried first. */
static Py_ssize_t named(run_t *run, const text_t *text, Py_ssize_t at, Py_ssize_t before) {
    const node_t *nodes = run->plan->nodes, *node = nodes + at;
    Py_ssize_t likely = run->follow[before];
    if (likely && is_name(text, nodes + likely)) return likely;
    for (Py_ssize_t child = node->first; child < node->first + node->count - (node->strict == KEEP); child++)
        if (is_name(text, nodes + child)) return run->follow[before] = child;
    return 0;
}

static void keep_begin(run_t *run) {
    run->rest.size = 0;
    run->names.count = 0;
    run->seen = 0;
}

/* Keeps a member that no column names; its value ends at ``text``. */
static int keep_member(run_t *run, const text_t *text, const string_t *name, const uint8_t *value) {
    blob_t *rest = &run->rest;
    int put = blob_put(rest, rest->size ? "," : "{", 1);
    size_t begin = rest->size;
    put = put && blob_put(rest, name->begin - 1, (size_t)(name->close - name->begin) + 2);
    if (put && !name_is_new(&run->names, 0, &run->seen, rest, begin)) return 0;
    put = put && blob_put(rest, ":", 1) && blob_put(rest, value, (size_t)(text->at - value));
    run->table.failed |= !put;
    return put;
}

/* Writes the kept members as an object into row ``row`` of column ``at``. */
static int keep_end(run_t *run, Py_ssize_t at, int64_t row) {
    table_t *table = &run->table;
    size_t begin = table->side.size, size = run->rest.size + 1;
    if (!run->rest.size) return 1;
    if (begin + size > INT32_MAX) return 0;
    if (!blob_put(&table->side, run->rest.data, run->rest.size) || !blob_put(&table->side, "}", 1)) return !(table->failed = 1);
    view_set((view_t *)table->columns[at].values.data + row, table->side.data + begin, size, table->side_buffer, begin);
    if (size <= INLINE) table->side.size = begin;
    set_valid(table->columns + at, row);
    return 1;
}

/* Reads the members of an object, after its opening brace, and the closing one. */
static int read_members(run_t *run, text_t *text, Py_ssize_t at, int64_t row, int depth) {
    const node_t *nodes = run->plan->nodes, *node = nodes + at;
    uint64_t seen[MAX_FIELDS / 64 + 1];
    string_t name;
    Py_ssize_t before = run->plan->count + at;
    if (node->strict == KEEP) keep_begin(run);
    memset(seen, 0, sizeof(uint64_t) * (size_t)(node->count / 64 + 1));
    blanks(text);
    if (text->at < text->end && *text->at == '}') text->at++;
    else
        for (;;) {
            blanks(text);
            if (text->at >= text->end || *text->at++ != '"') return 0;
            Py_ssize_t child = named(run, text, at, before);
            if (child) text->at += nodes[child].size;
            /* An escaped name may be that of a column. */
            else if (node->strict == REFUSE || !read_string(text, &name) || name.escaped) return 0;
            blanks(text);
            if (text->at >= text->end || *text->at++ != ':') return 0;
            blanks(text);
            if (child) {
                Py_ssize_t place = child - node->first;
                if (seen[place / 64] >> (place % 64) & 1) return 0;
                seen[place / 64] |= 1ULL << (place % 64);
                if (!read_value(run, text, child, row, depth + 1)) return 0;
                before = child;
            } else {
                const uint8_t *value = text->at;
                if (!skip_value(text, depth + 1) || (node->strict == KEEP && !keep_member(run, text, &name, value))) return 0;
            }
            blanks(text);
            if (text->at >= text->end) return 0;
            if (*text->at == '}') {
                text->at++;
                break;
            }
            if (*text->at++ != ',') return 0;
        }
    for (int child = 0; child < node->count; child++)
        if (nodes[node->first + child].required == REQUIRED && !(seen[child / 64] >> (child % 64) & 1)) return 0;
    return node->strict != KEEP || keep_end(run, node->first + node->count - 1, row);
}

static int read_items(run_t *run, text_t *text, Py_ssize_t at, int depth) {
    const node_t *node = run->plan->nodes + at;
    blanks(text);
    if (text->at < text->end && *text->at == ']') {
        text->at++;
        return 1;
    }
    for (;;) {
        int64_t row = item_begin(&run->table, at);
        if (row < 0) return 0;
        blanks(text);
        if (!read_value(run, text, node->first, row, depth + 1)) return 0;
        item_end(&run->table, at, row);
        blanks(text);
        if (text->at >= text->end) return 0;
        if (*text->at == ']') {
            text->at++;
            return 1;
        }
        if (*text->at++ != ',') return 0;
    }
}

static int put_text(table_t *table, view_t *view, const string_t *string) {
    size_t size = (size_t)(string->close - string->begin), begin = table->side.size;
    if (!string->escaped) {
        put_part(table, view, string->begin, size);
        return 1;
    }
    if (!unescape(string, &table->side)) return !(table->failed = 1);
    size = table->side.size - begin;
    if (table->side.size > INT32_MAX) return 0;
    view_set(view, table->side.data + begin, size, table->side_buffer, begin);
    if (size <= INLINE) table->side.size = begin;
    return 1;
}

int put_bytes(table_t *table, view_t *view, const string_t *string) {
    size_t size = (size_t)(string->close - string->begin), begin = table->side.size;
    if (string->escaped || begin + size > INT32_MAX) return 0;
    if (!blob_reserve(&table->side, size / 4 * 3 + 64)) return !(table->failed = 1);
    Py_ssize_t made = base64_decode(string->begin, size, table->side.data + begin);
    if (made < 0) return 0;
    view_set(view, table->side.data + begin, (size_t)made, table->side_buffer, begin);
    if (made > INLINE) table->side.size += (size_t)made;
    return 1;
}

static int put_item(table_t *table, view_t *view, text_t *text, int depth) {
    size_t begin = table->side.size;
    if (!read_item(text, &table->side, depth)) {
        table->failed |= table->side.failed;
        return 0;
    }
    size_t size = table->side.size - begin;
    if (table->side.size > INT32_MAX) return 0;
    view_set(view, table->side.data + begin, size, table->side_buffer, begin);
    if (size <= INLINE) table->side.size = begin;
    return 1;
}

static int put_integer(const node_t *node, uint8_t *values, int64_t row, const number_t *number) {
    static const uint64_t most[KINDS] = {[INT8] = INT8_MAX, [INT16] = INT16_MAX, [INT32] = INT32_MAX, [INT64] = INT64_MAX,
                                         [UINT8] = UINT8_MAX, [UINT16] = UINT16_MAX, [UINT32] = UINT32_MAX, [UINT64] = UINT64_MAX,
                                         [EPOCH] = INT64_MAX};
    int is_signed = node->kind <= INT64 || node->kind == EPOCH;
    if (!number->whole || !number->exact || (number->negative && (!number->digits || !is_signed))) return 0;
    /* The smallest integer has no positive counterpart and is left to the Python code. */
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

#ifdef __SIZEOF_INT128__
/* All digits of a number without an exponent that does not fit 64 bits; 0 if they are too many for any decimal. */
static int wide_digits(const number_t *number, unsigned __int128 *value, int *exponent) {
    int places = 0, after_point = 0;
    *value = 0;
    *exponent = 0;
    for (const uint8_t *at = number->begin + number->negative; at < number->end; at++) {
        if (*at == '.') {
            after_point = 1;
            continue;
        }
        *value = *value * 10 + (unsigned)(*at - '0');
        *exponent -= after_point;
        places += *value != 0;
        if (places > 38) return 0;
    }
    return 1;
}
#endif

/* Accepts only digits without an exponent, and only zeros after the first ``scale`` decimals. */
static int put_decimal(const node_t *node, uint8_t *values, int64_t row, const number_t *number) {
#ifdef __SIZEOF_INT128__
    int precision = (int)(node->unit >> 8), exponent = number->exponent;
    unsigned __int128 value = number->digits, limit = 1;
    if (memchr(number->begin, 'e', (size_t)(number->end - number->begin)) || memchr(number->begin, 'E', (size_t)(number->end - number->begin)) ||
        (!number->exact && !wide_digits(number, &value, &exponent)))
        return 0;
    int shift = (int)(node->unit & 255) + exponent;
    for (; shift < 0 && value % 10 == 0; shift++) value /= 10;
    if (shift < 0) return 0;
    for (; precision > shift; precision--) limit *= 10;
    /* ``limit`` leaves room for the digits that the shift adds, so nothing overflows below. */
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

static int put_real(const node_t *node, uint8_t *values, int64_t row, const number_t *number) {
    double real;
    if (!number_real(number, &real)) return 0;
    if (node->kind == FLOAT64) {
        ((double *)values)[row] = real;
        return 1;
    }
    ((float *)values)[row] = (float)real;
    return isfinite((float)real);
}

int put_number(const node_t *node, uint8_t *values, int64_t row, const number_t *number) {
    if (node->kind == FLOAT32 || node->kind == FLOAT64) return put_real(node, values, row, number);
    return node->kind == DECIMAL ? put_decimal(node, values, row, number) : put_integer(node, values, row, number);
}

static int read_text_value(run_t *run, text_t *text, const node_t *node, uint8_t *values, int64_t row) {
    string_t string;
    view_t *view = (view_t *)values + row;
    if (*text->at != '"') return 0;
    text->at++;
    if (!read_string(text, &string)) return 0;
    if (node->kind == TEXT) return put_text(&run->table, view, &string);
    if (node->kind == BINARY) return put_bytes(&run->table, view, &string);
    size_t size = (size_t)(string.close - string.begin);
    if (string.escaped) return 0;
    if (node->kind == STAMP) return read_stamp(string.begin, size, (int64_t *)values + row) && (node->unit == ANY_ZULU || string.close[-1] != 'z');
    return size == 10 && read_day(string.begin, size, (int32_t *)values + row);
}

static int read_scalar(run_t *run, text_t *text, const node_t *node, uint8_t *values, int64_t row, int depth) {
    number_t number;
    switch (node->kind) {
    case TEXT: case BINARY: case STAMP: case DAY:
        return read_text_value(run, text, node, values, row);
    case ITEM:
        return put_item(&run->table, (view_t *)values + row, text, depth);
    case RAW: case IMAGE: {
        string_t raw = {text->at, NULL, 0};
        if (!(node->kind == RAW ? skip_value(text, depth) : skip_item(text, depth))) return 0;
        raw.close = text->at;
        return put_text(&run->table, (view_t *)values + row, &raw);
    }
    case FLAG:
        if (*text->at == 't') {
            values[row >> 3] |= (uint8_t)(1u << (row & 7));
            return literal(text, "true", 4);
        }
        return literal(text, "false", 5);
    default:
        return read_number(text, &number) && put_number(node, values, row, &number);
    }
}

/* Reads one value into row ``row``; the row must still be zero. */
static int read_value(run_t *run, text_t *text, Py_ssize_t at, int64_t row, int depth) {
    const node_t *node = run->plan->nodes + at;
    column_t *column = run->table.columns + at;
    if (text->at >= text->end || depth > MAX_DEPTH) return 0;
    if (*text->at == 'n') return !node->required && literal(text, "null", 4);
    if (node->kind == OBJECT) {
        if (*text->at++ != '{' || !read_members(run, text, at, row, depth)) return 0;
    } else if (node->kind == LIST) {
        if (*text->at++ != '[' || !read_items(run, text, at, depth)) return 0;
    } else if (!read_scalar(run, text, node, column->values.data, row, depth)) return 0;
    /* Items of a nested list may have moved the memory of columns, but not ``column`` itself. */
    set_valid(column, row);
    return 1;
}

static int is_space(int byte) { return byte == ' ' || byte == '\t' || byte == '\r'; }

/* Reads one object per line of a record, as items of the list at the plan's root; there must be at least one. */
static int read_lines(run_t *run, text_t *text, int64_t record) {
    Py_ssize_t item = run->plan->nodes[0].first;
    for (int64_t found = 0;; found++) {
        while (text->at < text->end && (is_space(*text->at) || *text->at == '\n')) text->at++;
        if (text->at == text->end) {
            set_valid(run->table.columns, record);
            return found > 0;
        }
        int64_t row = item_begin(&run->table, 0);
        if (row < 0 || *text->at++ != '{' || !read_members(run, text, item, row, 1)) return 0;
        set_valid(run->table.columns + item, row);
        item_end(&run->table, 0, row);
        while (text->at < text->end && is_space(*text->at)) text->at++;
        if (text->at < text->end && *text->at != '\n') return 0;
    }
}

static int read_record(run_t *run, text_t *text, int64_t row) {
    if (run->plan->nodes[0].kind == LIST) return read_lines(run, text, row);
    blanks(text);
    if (text->at >= text->end || *text->at++ != '{' || !read_members(run, text, 0, row, 1)) return 0;
    blanks(text);
    return text->at == text->end;
}

static int decode_rows(void *of, const views_t *records) {
    run_t *run = of;
    if (run->follow == NULL) return 0;
    for (Py_ssize_t row = 0; row < records->rows && !run->table.failed; row++) {
        text_t text;
        row_begin(&run->table, records, row, &text);
        row_end(&run->table, row, read_record(run, &text, row));
    }
    return !run->table.failed;
}

PyObject *kernel_decode(PyObject *module, PyObject *const *args, Py_ssize_t count) {
    (void)module;
    run_t run = {0};
    if (count != 3) {
        PyErr_SetString(PyExc_TypeError, "decode takes a plan, views and buffers");
        return NULL;
    }
    run.plan = PyCapsule_GetPointer(args[0], PLAN_NAME);
    if (run.plan == NULL) return NULL;
    run.follow = calloc((size_t)run.plan->count * 2, sizeof *run.follow);
    PyObject *made = table_made(&run.table, run.plan->forms, run.plan->count, args[1], args[2], decode_rows, &run);
    free(run.follow);
    blob_free(&run.rest);
    return made;
}

/* Messages of Protocol Buffers to columns. */

#include "protobuf.h"
#include "wire.h"

enum wire { VARINT, EIGHT, SIZED, FOUR = 5 };

static const int WIRES[PROTOBUF_KINDS] = {[FIXED32] = FOUR, [SFIXED32] = FOUR, [FLOAT] = FOUR, [FIXED64] = EIGHT, [SFIXED64] = EIGHT,
                                          [DOUBLE] = EIGHT, [TEXT] = SIZED, [BYTES] = SIZED, [STAMP] = SIZED, [MESSAGE] = SIZED,
                                          [MAP] = SIZED};

typedef struct {
    const proto_plan_t *plan;
    table_t table;
    blob_t entries; /* of maps that are being read */
} run_t;

static int read_message(run_t *run, const proto_node_t *node, text_t *text, int64_t row);

/* Reads a field number or a size, of at most five bytes. */
static inline int read_short(text_t *text, uint64_t *value) {
    const uint8_t *from = text->at;
    if (from < text->end && *from < 128) {
        *value = *text->at++;
        return 1;
    }
    return read_varint(text, value) && text->at - from <= 5 && *value <= UINT32_MAX;
}

/* Bytes preceded by their length. */
static inline int read_sized(text_t *text, text_t *part) {
    uint64_t size;
    if (!read_short(text, &size) || (part->at = read_part(text, size)) == NULL) return 0;
    part->end = part->at + size;
    part->limit = text->limit;
    return 1;
}

static int skip(text_t *text, uint64_t wire) {
    uint64_t value;
    text_t part;
    switch (wire) {
    case VARINT: return read_varint(text, &value);
    case EIGHT: return read_part(text, 8) != NULL;
    case SIZED: return read_sized(text, &part);
    case FOUR: return read_part(text, 4) != NULL;
    default: return 0;
    }
}

/* The name of an enum value; in an open enum, a number without a name becomes its own text, which fits inline in a view. */
static int put_name(run_t *run, const proto_node_t *node, int32_t number, view_t *view) {
    const int32_t *numbers = run->plan->numbers + node->first;
    int low = 0, high = node->count;
    if (number >= 0 && number < node->count && numbers[number] == number) low = number;
    else
        while (low < high) {
            int middle = (low + high) / 2;
            if (numbers[middle] < number) low = middle + 1;
            else high = middle;
        }
    if (low < node->count && numbers[low] == number) return put_symbol(&run->plan->symbols, &run->table, node->first + low, view);
    if (node->closed) return 0;
    uint8_t text[INLINE], *end = text + INLINE, *at = end;
    uint32_t left = number < 0 ? 0 - (uint32_t)number : (uint32_t)number;
    do *--at = (uint8_t)('0' + left % 10);
    while (left /= 10);
    if (number < 0) *--at = '-';
    view_set(view, at, (size_t)(end - at), 0, 0);
    return 1;
}

/* Numbers with more bits than their field, which readers truncate, are left to the Python code. */
static int put_varint(run_t *run, const proto_node_t *node, text_t *text, uint8_t *values, int64_t row) {
    uint64_t raw;
    if (!read_varint(text, &raw)) return 0;
    int64_t value = (int64_t)raw;
    switch (node->kind) {
    case BOOL:
        put_bit(values, row, raw & 1);
        return raw < 2;
    case INT32:
        ((int32_t *)values)[row] = (int32_t)value;
        return value >= INT32_MIN && value <= INT32_MAX;
    case UINT32:
        ((uint32_t *)values)[row] = (uint32_t)raw;
        return raw <= UINT32_MAX;
    case SINT32:
        ((int32_t *)values)[row] = (int32_t)unzigzag(raw);
        return raw <= UINT32_MAX;
    case SINT64: ((int64_t *)values)[row] = unzigzag(raw); return 1;
    case ENUM: return value >= INT32_MIN && value <= INT32_MAX && put_name(run, node, (int32_t)value, (view_t *)values + row);
    default: ((uint64_t *)values)[row] = raw; return 1;
    }
}

/* Seconds and nanoseconds, truncated to microseconds. */
static int put_stamp(text_t *text, int64_t *micros) {
    uint64_t tag, raw, seconds = 0, nanos = 0;
    int seen = 0;
    while (text->at < text->end) {
        if (!read_short(text, &tag) || (tag != 8 && tag != 16) || seen & (int)tag || !read_varint(text, &raw)) return 0;
        seen |= (int)tag;
        if (tag == 8) seconds = raw;
        else nanos = raw;
    }
    int64_t whole = (int64_t)seconds;
    if (nanos > 999999999 || whole < -62135596800 || whole > 253402300799) return 0;
    *micros = whole * 1000000 + (int64_t)(nanos / 1000);
    return 1;
}

static int put_four(text_t *text, uint8_t *values, int64_t row) {
    const uint8_t *from = read_part(text, 4);
    if (from != NULL) memcpy(values + 4 * (size_t)row, from, 4);
    return from != NULL;
}

/* Reads a value of the node into row ``row`` of ``column``; the row must still be zero. */
static int read_value(run_t *run, const proto_node_t *node, text_t *text, Py_ssize_t column, int64_t row) {
    uint8_t *values = run->table.columns[column].values.data;
    text_t part;
    int good;
    if (WIRES[node->kind] == SIZED && !read_sized(text, &part)) return 0;
    size_t size = WIRES[node->kind] == SIZED ? (size_t)(part.end - part.at) : 0;
    switch (node->kind) {
    case MESSAGE: good = read_message(run, node, &part, row); break;
    case STAMP: good = put_stamp(&part, (int64_t *)values + row); break;
    case TEXT: case BYTES:
        good = size <= INT32_MAX && (node->kind == BYTES || is_text(part.at, size));
        if (good) put_part(&run->table, (view_t *)values + row, part.at, size);
        break;
    case FLOAT: good = put_float(text, sizeof(float), values, row); break;
    case FIXED32: case SFIXED32: good = put_four(text, values, row); break;
    case DOUBLE: case FIXED64: case SFIXED64: good = put_double(text, values, row); break;
    default: good = put_varint(run, node, text, values, row);
    }
    if (good) set_valid(run->table.columns + column, row);
    return good;
}

/* Writes the default of an absent field, unless that is null. */
static int put_default(run_t *run, const proto_node_t *node, int64_t row) {
    column_t *column = run->table.columns + node->column;
    if (node->kind == ENUM && !node->repeated && !put_name(run, node, node->fallback, (view_t *)column->values.data + row)) return 0;
    set_valid(column, row);
    return 1;
}

static int read_item(run_t *run, const proto_node_t *node, text_t *text) {
    int64_t row = item_begin(&run->table, node->column);
    if (row < 0 || !read_value(run, node, text, run->table.forms[node->column].first, row)) return 0;
    item_end(&run->table, node->column, row);
    return 1;
}

static int read_packed(run_t *run, const proto_node_t *node, text_t *text) {
    text_t part;
    if (!read_sized(text, &part)) return 0;
    while (part.at < part.end)
        if (!read_item(run, node, &part)) return 0;
    return 1;
}

static int has_sign(const proto_node_t *key) {
    return key->kind == INT32 || key->kind == INT64 || key->kind == SINT32 || key->kind == SINT64 || key->kind == SFIXED32 ||
           key->kind == SFIXED64;
}

/* Maps numeric keys to unsigned numbers in the same order. */
static const uint64_t SIGN = 1ULL << 63;

static int read_key(run_t *run, const proto_node_t *node, text_t *text, entry_t *entry) {
    union {
        uint8_t bytes[8];
        int32_t narrow;
        uint64_t wide;
    } value = {{0}};
    text_t part;
    int good;
    switch (node->kind) {
    case TEXT:
        if (!read_sized(text, &part)) return 0;
        entry->key = part.at;
        entry->key_size = (uint64_t)(part.end - part.at);
        return entry->key_size <= INT32_MAX && is_text(part.at, entry->key_size);
    case FIXED32: case SFIXED32: good = put_four(text, value.bytes, 0); break;
    case FIXED64: case SFIXED64: good = put_double(text, value.bytes, 0); break;
    default: good = put_varint(run, node, text, value.bytes, 0);
    }
    if (node->kind == INT32 || node->kind == SINT32 || node->kind == SFIXED32) value.wide = (uint64_t)(int64_t)value.narrow;
    entry->key_size = has_sign(node) ? value.wide ^ SIGN : value.wide;
    return good;
}

static int by_key(const void *one, const void *other) {
    const entry_t *first = one, *second = other;
    if (first->node != second->node) return first->node < second->node ? -1 : 1;
    if (first->key != NULL) {
        uint64_t less = first->key_size < second->key_size ? first->key_size : second->key_size;
        int order = memcmp(first->key, second->key, less);
        if (order) return order;
    }
    return (first->key_size > second->key_size) - (first->key_size < second->key_size);
}

static void put_key(run_t *run, const proto_node_t *node, const entry_t *entry, int64_t row) {
    column_t *column = run->table.columns + node->column;
    uint64_t key = has_sign(node) ? entry->key_size ^ SIGN : entry->key_size;
    size_t width = run->table.forms[node->column].width;
    if (node->kind == TEXT) put_part(&run->table, (view_t *)column->values.data + row, entry->key, entry->key_size);
    else if (node->kind == BOOL) put_bit(column->values.data, row, key);
    else memcpy(column->values.data + (size_t)row * width, &key, width);
    set_valid(column, row);
}

/* Records an entry; its value is read when all entries are known. */
static int find_entry(run_t *run, const proto_node_t *node, text_t *text) {
    const proto_node_t *key = run->plan->nodes + node->first, *value = key + 1;
    entry_t entry = {0};
    text_t part;
    uint64_t tag;
    int seen = 0;
    if (!read_sized(text, &part)) return 0;
    entry.node = node - run->plan->nodes;
    entry.key = key->kind == TEXT ? part.at : NULL;
    entry.key_size = has_sign(key) ? SIGN : 0;
    while (part.at < part.end) {
        if (!read_short(&part, &tag) || tag >> 3 > 2 || seen & 1 << (tag >> 3)) return 0;
        seen |= 1 << (tag >> 3);
        if (tag == (8 | (uint64_t)WIRES[key->kind])) {
            if (!read_key(run, key, &part, &entry)) return 0;
        } else if (tag == (16 | (uint64_t)WIRES[value->kind])) {
            entry.value = part.at;
            if (!skip(&part, tag & 7)) return 0;
            entry.value_size = (uint64_t)(part.at - entry.value);
        } else return 0;
    }
    return entry_push(&run->entries, &entry) || !(run->table.failed = 1);
}

static int read_entry(run_t *run, const entry_t *entry) {
    static const uint8_t nothing[1];
    const proto_node_t *node = run->plan->nodes + entry->node, *key = run->plan->nodes + node->first, *value = key + 1;
    int64_t row = item_begin(&run->table, node->column);
    if (row < 0) return 0;
    put_key(run, key, entry, row);
    set_valid(run->table.columns + run->table.forms[node->column].first, row);
    if (entry->value != NULL) {
        const uint8_t *end = entry->value + entry->value_size;
        text_t text = {entry->value, end, end};
        if (!read_value(run, value, &text, value->column, row)) return 0;
    } else {
        text_t empty = {nothing, nothing, nothing};
        if (value->kind == MESSAGE && !read_message(run, value, &empty, row)) return 0;
        if (!put_default(run, value, row)) return 0;
    }
    item_end(&run->table, node->column, row);
    return 1;
}

/* Reads the maps of a message; its entries begin at byte ``base``. */
static int read_maps(run_t *run, size_t base) {
    if (!entries_sort(&run->entries, base, by_key)) return 0;
    for (size_t at = base, end = run->entries.size; at < end; at += sizeof(entry_t)) {
        entry_t entry;
        memcpy(&entry, run->entries.data + at, sizeof entry);
        if (!read_entry(run, &entry)) return 0;
    }
    run->entries.size = base;
    return 1;
}

static int read_field(run_t *run, const proto_node_t *node, uint64_t wire, text_t *text, int64_t row, uint64_t *seen) {
    if (node->repeated) {
        if (node->kind == MAP) return wire == SIZED && find_entry(run, node, text);
        if (wire == (uint64_t)WIRES[node->kind]) return read_item(run, node, text);
        return wire == SIZED && read_packed(run, node, text);
    }
    uint64_t bit = 1ULL << (node->slot % 64);
    if (wire != (uint64_t)WIRES[node->kind] || seen[node->slot / 64] & bit) return 0;
    seen[node->slot / 64] |= bit;
    return read_value(run, node, text, node->column, row);
}

/* The index of the field with that number, or -1; writers order fields by number, so it is likely ``next`` or after it. */
static int find_field(const proto_node_t *fields, int count, uint64_t number, int next) {
    for (int likely = next; likely < next + 2 && likely < count; likely++)
        if (fields[likely].number == number) return likely;
    int low = 0, high = count;
    while (low < high) {
        int middle = (low + high) / 2;
        if (fields[middle].number < number) low = middle + 1;
        else high = middle;
    }
    return low < count && fields[low].number == number ? low : -1;
}

/* Writes the defaults of fields that were absent. */
static int finish(run_t *run, const proto_node_t *node, int64_t row, const uint64_t *seen) {
    for (int word = 0; word * 64 < node->count; word++)
        for (uint64_t missing = node->implicit[word] & ~seen[word]; missing; missing &= missing - 1)
            if (!put_default(run, run->plan->nodes + node->first + word * 64 + __builtin_ctzll(missing), row)) return 0;
    return 1;
}

/* Reads the fields of a message, to the end of ``text``. */
static int read_message(run_t *run, const proto_node_t *node, text_t *text, int64_t row) {
    const proto_node_t *fields = run->plan->nodes + node->first;
    size_t base = run->entries.size;
    uint64_t seen[MOST_FIELDS / 64 + 1], tag;
    int next = 0;
    memset(seen, 0, ((size_t)node->count / 64 + 1) * sizeof *seen);
    while (text->at < text->end) {
        if (!read_short(text, &tag) || tag < 8) return 0;
        int place = find_field(fields, node->count, tag >> 3, next);
        if (place >= 0) {
            if (!read_field(run, fields + place, tag & 7, text, row, seen)) return 0;
            next = place;
        } else if (node->closed || !skip(text, tag & 7)) return 0;
    }
    return (run->entries.size == base || read_maps(run, base)) && finish(run, node, row, seen);
}

static int decode_rows(void *of, const views_t *records) {
    run_t *run = of;
    if (!symbols_copy(&run->plan->symbols, &run->table)) return 0;
    for (Py_ssize_t row = 0; row < records->rows && !run->table.failed; row++) {
        text_t text;
        row_begin(&run->table, records, row, &text);
        run->entries.size = 0;
        row_end(&run->table, row, read_message(run, run->plan->nodes, &text, row));
    }
    return !run->table.failed;
}

PyObject *kernel_protobuf(PyObject *module, PyObject *args) {
    (void)module;
    run_t run = {0};
    PyObject *capsule, *views, *buffers;
    if (!PyArg_ParseTuple(args, "OOO", &capsule, &views, &buffers)) return NULL;
    run.plan = PyCapsule_GetPointer(capsule, PROTOBUF_PLAN_NAME);
    if (run.plan == NULL) return NULL;
    PyObject *made = table_made(&run.table, run.plan->forms, run.plan->form_count, views, buffers, decode_rows, &run);
    blob_free(&run.entries);
    return made;
}

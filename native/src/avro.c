/* Avro data to columns. */

#include "avro.h"
#include "wire.h"

typedef struct {
    const avro_plan_t *plan;
    table_t table;
    blob_t entries; /* of maps that are being read */
} run_t;

static int read_whole(text_t *text, int64_t *value) {
    uint64_t raw;
    if (!read_varint(text, &raw)) return 0;
    *value = unzigzag(raw);
    return 1;
}

/* Bytes preceded by their length; NULL if there are fewer. */
static const uint8_t *read_sized(text_t *text, size_t *size) {
    int64_t count;
    if (!read_whole(text, &count) || count < 0) return NULL;
    *size = (size_t)count;
    return read_part(text, (uint64_t)count);
}

static const uint8_t *read_text(text_t *text, size_t *size) {
    const uint8_t *from = read_sized(text, size);
    return from != NULL && is_text(from, *size) ? from : NULL;
}

/* A UUID of 36 characters, as Python writes it or in upper case. */
static int put_uuid(table_t *table, text_t *text, view_t *view) {
    size_t size, begin = table->side.size;
    const uint8_t *from = read_sized(text, &size);
    int capitals = 0;
    if (from == NULL || size != 36) return 0;
    for (size_t at = 0; at < size; at++) {
        uint8_t byte = from[at], low = byte | 32;
        if (at == 8 || at == 13 || at == 18 || at == 23) {
            if (byte != '-') return 0;
        } else if (low >= 'a' && low <= 'f') capitals |= byte != low;
        else if (byte < '0' || byte > '9') return 0;
    }
    put_part(table, view, from, size);
    if (!capitals) return 1;
    if (begin + size > INT32_MAX) return 0;
    if (!blob_reserve(&table->side, size)) return !(table->failed = 1);
    for (size_t at = 0; at < size; at++) table->side.data[begin + at] = from[at] | 32;
    table->side.size += size;
    view_set(view, table->side.data + begin, size, table->side_buffer, begin);
    return 1;
}

/* A big-endian number of up to 16 bytes. */
static int put_decimal(const avro_node_t *node, text_t *text, uint8_t *values, int64_t row) {
#ifdef __SIZEOF_INT128__
    size_t size = (size_t)node->unit;
    const uint8_t *from = size ? read_part(text, size) : read_sized(text, &size);
    if (from == NULL || size < 1 || size > 16 || node->most > 38) return 0;
    unsigned __int128 raw = from[0] & 128 ? ~(unsigned __int128)0 : 0;
    __int128 limit = 1;
    for (size_t at = 0; at < size; at++) raw = raw << 8 | from[at];
    for (int64_t digit = 0; digit < node->most; digit++) limit *= 10;
    __int128 value = (__int128)raw;
    if (value >= limit || value <= -limit) return 0;
    memcpy(values + (size_t)row * sizeof value, &value, sizeof value);
    return 1;
#else
    (void)node, (void)text, (void)values, (void)row;
    return 0;
#endif
}

static int put_whole(const avro_node_t *node, text_t *text, size_t width, uint8_t *values, int64_t row) {
    int64_t value;
    if (!read_whole(text, &value) || value < node->least || value > node->most) return 0;
    if (node->kind == PROMOTED) {
        if (width == sizeof(double)) ((double *)values)[row] = (double)value;
        else ((float *)values)[row] = (float)(double)value;
    } else if (width == sizeof(int64_t)) ((int64_t *)values)[row] = value * node->unit;
    else ((int32_t *)values)[row] = (int32_t)value;
    return 1;
}

static int read_symbol(run_t *run, const avro_node_t *node, text_t *text, view_t *view) {
    int64_t symbol;
    return read_whole(text, &symbol) && symbol >= 0 && symbol < node->count &&
           put_symbol(&run->plan->symbols, &run->table, node->first + symbol, view);
}

static int read_scalar(run_t *run, const avro_node_t *node, text_t *text, size_t width, uint8_t *values, int64_t row) {
    size_t size = (size_t)node->unit;
    const uint8_t *from;
    switch (node->kind) {
    case BOOLEAN:
        if ((from = read_part(text, 1)) == NULL || *from > 1) return 0;
        put_bit(values, row, *from);
        return 1;
    case WHOLE: case PROMOTED: return put_whole(node, text, width, values, row);
    case FLOAT: return put_float(text, width, values, row);
    case DOUBLE: return put_double(text, values, row);
    case UUID: return put_uuid(&run->table, text, (view_t *)values + row);
    case DECIMAL: return put_decimal(node, text, values, row);
    case ENUM: return read_symbol(run, node, text, (view_t *)values + row);
    case TEXT: from = read_text(text, &size); break;
    case BYTES: from = read_sized(text, &size); break;
    default: from = read_part(text, size);
    }
    if (from == NULL || size > INT32_MAX) return 0;
    put_part(&run->table, (view_t *)values + row, from, size);
    return 1;
}

/* Reads the branch of the union, if the node is in one; -1 if it is invalid, 1 for null. */
static inline int read_branch(const avro_node_t *node, text_t *text) {
    int64_t branch;
    if (!node->branches) return 0;
    if (!read_whole(text, &branch) || branch < 0 || branch >= node->branches) return -1;
    if (branch != node->null) return 0;
    return node->nullable ? 1 : -1;
}

/* The number of items left in a block, and the end that the block states, or NULL. */
typedef struct {
    int64_t left;
    const uint8_t *end;
} block_t;

/* 1 if another item follows, of at least a byte; 0 after the last block; -1 if readers may differ. ``block`` must be zero at first. */
static int more_items(text_t *text, block_t *block) {
    int64_t size;
    if (block->left) {
        block->left--;
        return 1;
    }
    /* Readers that skip a block rely on its size, others on its items; the two must agree. */
    if ((block->end != NULL && text->at != block->end) || !read_whole(text, &block->left)) return -1;
    block->end = NULL;
    if (block->left < 0) {
        if (block->left == INT64_MIN || !read_whole(text, &size) || size < 0 || size > text->end - text->at) return -1;
        block->left = -block->left;
        block->end = text->at + size;
    }
    if (block->left > text->end - text->at) return -1;
    if (!block->left) return 0;
    block->left--;
    return 1;
}

/* Skips a value of the node; 0 unless its bytes are valid. */
static int skip_data(run_t *run, Py_ssize_t at, text_t *text) {
    const avro_node_t *node = run->plan->nodes + at;
    union {
        view_t view;
        uint8_t bytes[16];
    } nowhere = {{0}};
    block_t block = {0};
    size_t size;
    int more, null = read_branch(node, text);
    if (null) return null > 0;
    switch (node->kind) {
    case RECORD:
        for (int child = 0; child < node->count; child++)
            if (!skip_data(run, node->first + child, text)) return 0;
        return 1;
    case ARRAY: case MAP:
        while ((more = more_items(text, &block)) > 0)
            if ((node->kind == MAP && read_text(text, &size) == NULL) || !skip_data(run, node->first, text)) return 0;
        return more == 0;
    case CONSTANT: return 1;
    default: return read_scalar(run, node, text, sizeof(int64_t), nowhere.bytes, 0);
    }
}

static int read_data(run_t *run, Py_ssize_t at, text_t *text, int64_t row);

static int read_items(run_t *run, const avro_node_t *node, text_t *text) {
    block_t block = {0};
    int more;
    while ((more = more_items(text, &block)) > 0) {
        int64_t row = item_begin(&run->table, node->column);
        if (row < 0 || !read_data(run, node->first, text, row)) return 0;
        item_end(&run->table, node->column, row);
    }
    return more == 0;
}

/* Compares by size only if one key is a prefix of the other. */
static int by_key(const void *one, const void *other) {
    const entry_t *first = one, *second = other;
    uint64_t less = first->key_size < second->key_size ? first->key_size : second->key_size;
    int order = memcmp(first->key, second->key, less);
    return order ? order : (first->key_size > second->key_size) - (first->key_size < second->key_size);
}

/* Finds the entries up to the end of the map, and sorts them. */
static int find_entries(run_t *run, const avro_node_t *node, text_t *text) {
    size_t base = run->entries.size, size = 0;
    block_t block = {0};
    int more;
    while ((more = more_items(text, &block)) > 0) {
        entry_t entry = {0};
        if ((entry.key = read_text(text, &size)) == NULL) return 0;
        entry.key_size = size;
        entry.value = text->at;
        if (!skip_data(run, node->first, text)) return 0;
        if (!entry_push(&run->entries, &entry)) return !(run->table.failed = 1);
    }
    return more == 0 && entries_sort(&run->entries, base, by_key);
}

static int read_entries(run_t *run, const avro_node_t *node, text_t *text) {
    table_t *table = &run->table;
    size_t base = run->entries.size;
    Py_ssize_t pair = table->forms[node->column].first, key = table->forms[pair].first;
    if (!find_entries(run, node, text)) return 0;
    for (size_t at = base, end = run->entries.size; at < end; at += sizeof(entry_t)) {
        entry_t entry;
        memcpy(&entry, run->entries.data + at, sizeof entry);
        text_t value = {entry.value, text->end, text->limit};
        int64_t row = item_begin(table, node->column);
        if (row < 0 || entry.key_size > INT32_MAX || !read_data(run, node->first, &value, row)) return 0;
        put_part(table, (view_t *)table->columns[key].values.data + row, entry.key, entry.key_size);
        set_valid(table->columns + key, row);
        set_valid(table->columns + pair, row);
        item_end(table, node->column, row);
    }
    run->entries.size = base;
    return 1;
}

static int read_fields(run_t *run, const avro_node_t *node, text_t *text, int64_t row) {
    for (Py_ssize_t child = node->first, end = child + node->count; child < end; child++)
        if (!read_data(run, child, text, row)) return 0;
    return 1;
}

static int read_constant(run_t *run, const avro_node_t *node, int64_t row) {
    const uint8_t *end = node->constant + node->size;
    text_t text = {node->constant, end, end};
    return read_data(run, node->first, &text, row) && text.at == end;
}

/* Reads a value into row ``row`` of its column; the row must still be zero. */
static int read_data(run_t *run, Py_ssize_t at, text_t *text, int64_t row) {
    const avro_node_t *node = run->plan->nodes + at;
    if (node->column < 0) return skip_data(run, at, text);
    int null = read_branch(node, text);
    if (null) return null > 0;
    column_t *column = run->table.columns + node->column;
    int good;
    switch (node->kind) {
    case RECORD: good = read_fields(run, node, text, row); break;
    case ARRAY: good = read_items(run, node, text); break;
    case MAP: good = read_entries(run, node, text); break;
    case CONSTANT: return read_constant(run, node, row);
    default: good = read_scalar(run, node, text, run->table.forms[node->column].width, column->values.data, row);
    }
    if (good) set_valid(column, row);
    return good;
}

/* Removes the head of the record and finds the schema of its writer; NULL if it is unknown. */
static const writer_t *read_head(const avro_plan_t *plan, text_t *text, const writer_t *last) {
    const uint8_t *head = read_part(text, plan->head_size);
    if (head == NULL) return NULL;
    if (!memcmp(head, last->head, plan->head_size)) return last;
    for (Py_ssize_t at = 0; at < plan->writer_count; at++)
        if (!memcmp(head, plan->writers[at].head, plan->head_size)) return plan->writers + at;
    return NULL;
}

static int decode_rows(void *of, const views_t *records) {
    run_t *run = of;
    if (!symbols_copy(&run->plan->symbols, &run->table)) return 0;
    const writer_t *last = run->plan->writers;
    for (Py_ssize_t row = 0; row < records->rows && !run->table.failed; row++) {
        text_t text;
        row_begin(&run->table, records, row, &text);
        run->entries.size = 0;
        const writer_t *writer = text.at < text.end ? read_head(run->plan, &text, last) : NULL;
        if (writer != NULL) last = writer;
        int good = writer != NULL && read_fields(run, run->plan->nodes + writer->root, &text, row) && text.at == text.end;
        row_end(&run->table, row, good);
    }
    return !run->table.failed;
}

PyObject *kernel_avro(PyObject *module, PyObject *args) {
    (void)module;
    run_t run = {0};
    PyObject *capsule, *views, *buffers;
    if (!PyArg_ParseTuple(args, "OOO", &capsule, &views, &buffers)) return NULL;
    run.plan = PyCapsule_GetPointer(capsule, AVRO_PLAN_NAME);
    if (run.plan == NULL) return NULL;
    PyObject *made = table_made(&run.table, run.plan->forms, run.plan->form_count, views, buffers, decode_rows, &run);
    blob_free(&run.entries);
    return made;
}

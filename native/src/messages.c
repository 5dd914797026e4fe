/* A member of gzip (RFC 1952) that holds many messages of one width each, which nobody has laid out; see pattern.c. */

#include "messages.h"

static void messages_close(messages_t *all) {
    for (Py_ssize_t index = 0; index < all->opened; index++) PyBuffer_Release(&all->fields[index].table);
    if (all->chosen.obj != NULL) PyBuffer_Release(&all->chosen);
    free(all->fields);
    free(all->shared);
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
    if (!shared.size) return refuse("a message has one byte at least");
    all->width = shared.size;
    all->shared = shared.data;
    return rows_check(all);
}

static void bytes_count(const blob_t *bytes, counts_t *counts) {
    for (size_t place = 0; place < bytes->size; place++) counts->literals[bytes->data[place]]++;
}

static int bytes_write(const blob_t *bytes, member_t *member) {
    if (!room(member, &member->out, bytes->size)) return 0;
    bits_literals(&member->out, member->codes, bytes->data, bytes->size);
    member->sum = checksum(member->sum, bytes->data, bytes->size);
    return 1;
}

/* The whole member; ``patterns`` has room for one of each block. 0 where there is no memory. */
static int member_write(blob_t *blob, messages_t *blocks, Py_ssize_t count, pattern_t **patterns, const blob_t *head, const blob_t *tail) {
    static const uint8_t MAGIC[10] = {0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 4, 0xFF};
    counts_t counts = {0};
    codes_t codes;
    uint64_t size = (uint64_t)head->size + (uint64_t)tail->size;
    counts.literals[END_OF_BLOCK] = 1;
    bytes_count(head, &counts);
    bytes_count(tail, &counts);
    for (Py_ssize_t index = 0; index < count; index++) {
        patterns[index] = pattern_learn(blocks + index, &counts);
        if (patterns[index] == NULL) return 0;
        size += blocks[index].width * (uint64_t)blocks[index].count;
    }
    codes_for(&counts, &codes);
    if (!blob_reserve(blob, sizeof MAGIC + HEAD_BYTES)) return 0;
    memcpy(blob->data, MAGIC, sizeof MAGIC);
    member_t member = {blob, {blob->data + sizeof MAGIC, 0, 0}, &codes, 0xFFFFFFFFU};
    bits_head(&member.out, &codes);
    if (!bytes_write(head, &member)) return 0;
    for (Py_ssize_t index = 0; index < count; index++)
        if (!pattern_write(patterns[index], &member)) return 0;
    if (!bytes_write(tail, &member)) return 0;
    bits_put(&member.out, codes.literals[END_OF_BLOCK].bits, codes.literals[END_OF_BLOCK].size);
    if (member.out.waiting) member.out.at++;
    uint32_t sum = member.sum ^ 0xFFFFFFFFU, rest = (uint32_t)size;
    memcpy(member.out.at, &sum, 4);
    memcpy(member.out.at + 4, &rest, 4);
    blob->size = (size_t)(member.out.at + 8 - blob->data);
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
    pattern_t **patterns = calloc((size_t)count + 1, sizeof *patterns);
    checksum_prepare();
    if (blocks == NULL || patterns == NULL || !copied(&head, ends[0], (size_t)sizes[0]) || !copied(&tail, ends[1], (size_t)sizes[1])) {
        PyErr_NoMemory();
        goto done;
    }
    while (opened < count) {
        PyObject *block = PyTuple_GetItem(list, opened);
        if (!messages_open(blocks + opened++, block)) goto done;
    }
    int made;
    Py_BEGIN_ALLOW_THREADS
    made = member_write(&blob, blocks, count, patterns, &head, &tail);
    Py_END_ALLOW_THREADS
    result = made ? PyBytes_FromStringAndSize((const char *)blob.data, (Py_ssize_t)blob.size) : PyErr_NoMemory();
done:
    for (Py_ssize_t index = 0; index < opened; index++) {
        pattern_free(patterns[index]);
        messages_close(blocks + index);
    }
    free(blocks);
    free(patterns);
    blob_free(&blob);
    blob_free(&head);
    blob_free(&tail);
    return result;
}

PyObject *kernel_varints(PyObject *module, PyObject *args) {
    (void)module;
    enum { WIDTH = 5 };
    Py_buffer values;
    blob_t out = {0};
    if (!PyArg_ParseTuple(args, "y*", &values)) return NULL;
    size_t rows = (size_t)values.len / sizeof(uint32_t);
    int made = blob_reserve(&out, WIDTH * rows + sizeof(uint64_t));
    Py_BEGIN_ALLOW_THREADS
    for (size_t row = 0; made && row < rows; row++) {
        uint32_t value;
        memcpy(&value, (const uint8_t *)values.buf + row * sizeof value, sizeof value);
        uint64_t bits = (value & 0x7FU) | (uint64_t)(value & 0x7FU << 7) << 1 | (uint64_t)(value & 0x7FU << 14) << 2 |
                        (uint64_t)(value & 0x7FU << 21) << 3 | (uint64_t)(value >> 28) << 32 | 0x80808080U;
        memcpy(out.data + WIDTH * row, &bits, sizeof bits);
    }
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&values);
    out.size = WIDTH * rows;
    return made ? blob_take(&out) : PyErr_NoMemory();
}

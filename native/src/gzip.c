/* A member of gzip (RFC 1952) that holds many messages of one width each, which nobody has laid out; see pattern.c. */

#include "pattern.h"

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

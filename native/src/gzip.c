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
static int member_write(blob_t *blob, const request_t *request, pattern_t **patterns) {
    static const uint8_t MAGIC[10] = {0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 4, 0xFF};
    counts_t counts = {0};
    codes_t codes;
    uint64_t size = (uint64_t)request->head.size + (uint64_t)request->tail.size;
    counts.literals[END_OF_BLOCK] = 1;
    bytes_count(&request->head, &counts);
    bytes_count(&request->tail, &counts);
    for (Py_ssize_t index = 0; index < request->count; index++) {
        patterns[index] = pattern_learn(request->blocks + index, &counts);
        if (patterns[index] == NULL) return 0;
        size += request->blocks[index].width * (uint64_t)request->blocks[index].count;
    }
    codes_for(&counts, &codes);
    if (!blob_reserve(blob, sizeof MAGIC + HEAD_BYTES)) return 0;
    memcpy(blob->data, MAGIC, sizeof MAGIC);
    member_t member = {blob, {blob->data + sizeof MAGIC, 0, 0}, &codes, 0xFFFFFFFFU};
    bits_head(&member.out, &codes);
    if (!bytes_write(&request->head, &member)) return 0;
    for (Py_ssize_t index = 0; index < request->count; index++)
        if (!pattern_write(patterns[index], &member)) return 0;
    if (!bytes_write(&request->tail, &member)) return 0;
    bits_put(&member.out, codes.literals[END_OF_BLOCK].bits, codes.literals[END_OF_BLOCK].size);
    if (member.out.waiting) member.out.at++;
    uint32_t sum = member.sum ^ 0xFFFFFFFFU, rest = (uint32_t)size;
    memcpy(member.out.at, &sum, 4);
    memcpy(member.out.at + 4, &rest, 4);
    blob->size = (size_t)(member.out.at + 8 - blob->data);
    return 1;
}

PyObject *kernel_gzip(PyObject *module, PyObject *args) {
    (void)module;
    blob_t blob = {0};
    request_t request = {0};
    pattern_t **patterns = NULL;
    PyObject *result = NULL;
    checksum_prepare();
    if (request_open(&request, args)) {
        int made = 0;
        patterns = calloc((size_t)request.count + 1, sizeof *patterns);
        Py_BEGIN_ALLOW_THREADS
        made = patterns != NULL && member_write(&blob, &request, patterns);
        Py_END_ALLOW_THREADS
        result = made ? PyBytes_FromStringAndSize((const char *)blob.data, (Py_ssize_t)blob.size) : PyErr_NoMemory();
    }
    for (Py_ssize_t index = 0; patterns != NULL && index < request.count; index++) pattern_free(patterns[index]);
    free(patterns);
    request_close(&request);
    blob_free(&blob);
    return result;
}

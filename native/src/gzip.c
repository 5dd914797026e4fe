/* Writes a gzip member (RFC 1952) of messages that are never assembled in memory as a whole; see pattern.c. */

#include "pattern.h"

static void bytes_count(const blob_t *bytes, counts_t *counts) {
    for (size_t index = 0; index < bytes->size; index++) counts->literals[bytes->data[index]]++;
}

static int bytes_write(const blob_t *bytes, member_t *member) {
    if (!room(member, &member->out, bytes->size)) return 0;
    bits_literals(&member->out, member->codes, bytes->data, bytes->size);
    member->sum = checksum(member->sum, bytes->data, bytes->size);
    return 1;
}

/* Writes the whole member; ``patterns`` has room for one pattern per block. 0 if memory ran out. */
static int member_write(blob_t *blob, const request_t *request, pattern_t **patterns) {
    static const uint8_t MAGIC[10] = {0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 4, 0xFF};
    counts_t counts = {0};
    codes_t codes;
    uint64_t size = (uint64_t)request->head.size + (uint64_t)request->tail.size;
    counts.literals[END_OF_BLOCK] = 1;
    bytes_count(&request->head, &counts);
    bytes_count(&request->tail, &counts);
    for (Py_ssize_t block = 0; block < request->count; block++) {
        patterns[block] = pattern_learn(request->blocks + block, &counts);
        if (patterns[block] == NULL) return 0;
        size += request->blocks[block].width * (uint64_t)request->blocks[block].count;
    }
    codes_for(&counts, &codes);
    if (!blob_reserve(blob, sizeof MAGIC + HEADER_BYTES)) return 0;
    memcpy(blob->data, MAGIC, sizeof MAGIC);
    member_t member = {blob, {blob->data + sizeof MAGIC, 0, 0}, &codes, 0xFFFFFFFFU};
    header_write(&member.out, &codes);
    if (!bytes_write(&request->head, &member)) return 0;
    for (Py_ssize_t block = 0; block < request->count; block++)
        if (!pattern_write(patterns[block], &member)) return 0;
    if (!bytes_write(&request->tail, &member)) return 0;
    bits_put(&member.out, codes.literals[END_OF_BLOCK].bits, codes.literals[END_OF_BLOCK].size);
    if (member.out.waiting) member.out.at++;
    uint32_t sum = member.sum ^ 0xFFFFFFFFU, low_size = (uint32_t)size;
    memcpy(member.out.at, &sum, 4);
    memcpy(member.out.at + 4, &low_size, 4);
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
        int written = 0;
        patterns = calloc((size_t)request.count + 1, sizeof *patterns);
        Py_BEGIN_ALLOW_THREADS
        written = patterns != NULL && member_write(&blob, &request, patterns);
        Py_END_ALLOW_THREADS
        result = written ? blob_take(&blob) : PyErr_NoMemory();
    }
    for (Py_ssize_t block = 0; patterns != NULL && block < request.count; block++) pattern_free(patterns[block]);
    free(patterns);
    request_close(&request);
    blob_free(&blob);
    return result;
}

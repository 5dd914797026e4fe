/* IP addresses in their usual spellings: version, kind, and the network that contains an address. */

#include "kernel.h"

enum { OCTETS = 4, GROUPS = 8, HEX_DIGITS = 4, MOST_NETWORK = 20 };

/* Addresses from ``first`` to ``last``, each 128 bits in two halves, upper half first. The first range that contains an address counts. */
typedef struct {
    uint64_t first[2], last[2], version, kind;
} range_t;

typedef struct {
    blob_t versions, kinds, networks, data;
} addresses_t;

/* Four decimal numbers without leading zeros, which some programs read as octal; -1 for anything else. */
static int64_t read_v4(const uint8_t *at, const uint8_t *end, const uint8_t **network_end) {
    uint32_t address = 0;
    for (int octet = 0; octet < OCTETS; octet++) {
        const uint8_t *begin = at;
        unsigned value = 0;
        while (at < end && at - begin < 3 && (uint8_t)(*at - '0') < 10) value = value * 10 + (*at++ - '0');
        if (at == begin || value > 255 || (*begin == '0' && at - begin > 1)) return -1;
        address = address << 8 | value;
        if (octet == OCTETS - 1) break;
        if (octet == OCTETS - 2) *network_end = at;
        if (at == end || *at++ != '.') return -1;
    }
    return at == end ? (int64_t)address : -1;
}

static inline int hex_digit(uint8_t byte) {
    uint8_t letter = (uint8_t)((byte | 32) - 'a');
    return (uint8_t)(byte - '0') < 10 ? byte - '0' : letter < 6 ? letter + 10 : -1;
}

/* Groups of hex digits, with at most one ``::`` for one or more zero groups; 0 for anything else. */
static int read_v6(const uint8_t *at, const uint8_t *end, uint16_t *groups) {
    int count = 0, gap = -1;
    if (end - at < 2) return 0;
    if (*at == ':') {
        if (at[1] != ':') return 0;
        gap = 0;
        at += 2;
    }
    while (at < end) {
        int value = 0, digits = 0, digit;
        for (; at < end && digits <= HEX_DIGITS && (digit = hex_digit(*at)) >= 0; at++, digits++) value = value << 4 | digit;
        if (!digits || digits > HEX_DIGITS || count == GROUPS) return 0;
        groups[count++] = (uint16_t)value;
        if (at == end) break;
        if (*at++ != ':' || at == end) return 0;
        if (*at == ':') {
            if (gap >= 0) return 0;
            gap = count;
            at++;
        }
    }
    if (gap < 0) return count == GROUPS;
    if (count == GROUPS) return 0;
    int missing = GROUPS - count;
    memmove(groups + gap + missing, groups + gap, (size_t)(count - gap) * sizeof *groups);
    memset(groups + gap, 0, (size_t)missing * sizeof *groups);
    return 1;
}

/* Writes the /48 network; ``::`` replaces all zero groups at its end, since that is the longest run. */
static size_t network_v6(const uint16_t *groups, uint8_t *to) {
    static const char hex[] = "0123456789abcdef";
    uint8_t *at = to;
    int count = 3;
    while (count && !groups[count - 1]) count--;
    for (int group = 0; group < count; group++) {
        unsigned value = groups[group], shift = value > 0xFFF ? 12 : value > 0xFF ? 8 : value > 0xF ? 4 : 0;
        if (group) *at++ = ':';
        for (;; shift -= 4) {
            *at++ = (uint8_t)hex[value >> shift & 15];
            if (!shift) break;
        }
    }
    memcpy(at, "::/48", 5);
    return (size_t)(at + 5 - to);
}

static inline int not_before(const uint64_t *address, const uint64_t *other) {
    return address[0] != other[0] ? address[0] > other[0] : address[1] >= other[1];
}

static uint8_t kind_of(const range_t *ranges, size_t count, uint64_t version, const uint64_t *address) {
    for (const range_t *range = ranges; range < ranges + count; range++)
        if (range->version == version && not_before(address, range->first) && not_before(range->last, address)) return (uint8_t)range->kind;
    return 0;
}

static int read_all(addresses_t *out, const views_t *texts, const range_t *ranges, size_t count) {
    size_t rows = (size_t)texts->rows;
    if (!blob_resize(&out->versions, rows) || !blob_resize(&out->kinds, rows) || !blob_resize(&out->networks, rows * sizeof(view_t))) return 0;
    for (size_t row = 0; row < rows; row++) {
        uint8_t network[MOST_NETWORK];
        uint16_t groups[GROUPS];
        uint64_t address[2] = {0};
        size_t size;
        const uint8_t *limit, *text = views_at(texts, (Py_ssize_t)row, &size, &limit), *network_end = text;
        int64_t four = read_v4(text, text + size, &network_end);
        if (four >= 0) {
            out->versions.data[row] = 4;
            address[1] = (uint64_t)four;
            size = (size_t)(network_end - text);
            memcpy(network, text, size);
            memcpy(network + size, ".0/24", 5);
            size += 5;
        } else if (read_v6(text, text + size, groups)) {
            out->versions.data[row] = 6;
            for (int group = 0; group < GROUPS; group++) address[group / 4] = address[group / 4] << 16 | groups[group];
            size = network_v6(groups, network);
        } else
            continue;
        out->kinds.data[row] = kind_of(ranges, count, out->versions.data[row], address);
        if (!blob_reserve(&out->data, MOST_NETWORK)) return 0;
        memcpy(out->data.data + out->data.size, network, size);
        view_set((view_t *)out->networks.data + row, network, size, 0, out->data.size);
        if (size > INLINE) out->data.size += size;
    }
    return 1;
}

PyObject *kernel_addresses(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *views, *buffers, *result = NULL;
    Py_buffer ranges;
    views_t texts;
    addresses_t out = {0};
    int made;
    if (!PyArg_ParseTuple(args, "OOy*", &views, &buffers, &ranges)) return NULL;
    if (ranges.len % (Py_ssize_t)sizeof(range_t)) {
        PyErr_SetString(PyExc_ValueError, "a range must be six 64-bit numbers");
    } else if (views_open(&texts, views, buffers)) {
        Py_BEGIN_ALLOW_THREADS
        made = read_all(&out, &texts, ranges.buf, (size_t)ranges.len / sizeof(range_t));
        Py_END_ALLOW_THREADS
        if (!made) result = PyErr_NoMemory();
        else if (out.data.size > INT32_MAX) result = Py_NewRef(Py_None);
        else {
            PyObject *known = taken_pair(&out.versions, &out.kinds), *network = taken_pair(&out.networks, &out.data);
            result = known != NULL && network != NULL ? PyTuple_Pack(2, known, network) : NULL;
            Py_XDECREF(known);
            Py_XDECREF(network);
        }
        views_close(&texts);
    }
    blob_free(&out.versions);
    blob_free(&out.kinds);
    blob_free(&out.networks);
    blob_free(&out.data);
    PyBuffer_Release(&ranges);
    return result;
}

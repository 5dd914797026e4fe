/* Hashes and ids of columns of records, eight records at a time if the processor supports it. */

#include "octets.h"

static int records_open(records_t *records, PyObject *views, PyObject *buffers, PyObject *subsequences) {
    memset(records, 0, sizeof *records);
    if (!views_open(&records->sequences, views, buffers)) return 0;
    if (PyObject_GetBuffer(subsequences, &records->subsequences, PyBUF_SIMPLE)) {
        views_close(&records->sequences);
        return 0;
    }
    if (records->subsequences.len == 4 * records->sequences.rows) return 1;
    PyErr_Format(PyExc_ValueError, "%zd sequence numbers need as many sub-sequence numbers of uint32", records->sequences.rows);
    PyBuffer_Release(&records->subsequences);
    views_close(&records->sequences);
    return 0;
}

static void records_close(records_t *records) {
    PyBuffer_Release(&records->subsequences);
    views_close(&records->sequences);
}

PyObject *kernel_set_hash(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *views, *buffers, *subsequences;
    records_t records;
    hash_t hash = {0};
    int made, quick;
    if (!PyArg_ParseTuple(args, "OOOp", &views, &buffers, &subsequences, &quick)) return NULL;
    if (!records_open(&records, views, buffers, subsequences)) return NULL;
    quick = quick && octets_supported();
    Py_BEGIN_ALLOW_THREADS
    made = quick ? octets_hash(&records, &hash) : hash_rows(&records, 0, records.sequences.rows, &hash);
    Py_END_ALLOW_THREADS
    records_close(&records);
    if (!made) Py_RETURN_NONE;
    return Py_BuildValue("KK", (unsigned long long)hash.sum[HASH_HIGH], (unsigned long long)hash.sum[HASH_LOW]);
}

PyObject *kernel_record_ids(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *views, *buffers, *subsequences, *result = NULL;
    unsigned long long seeds[4];
    records_t records;
    blob_t traces = {0}, spans = {0};
    int quick;
    if (!PyArg_ParseTuple(args, "OOO(KKKK)p", &views, &buffers, &subsequences, seeds, seeds + 1, seeds + 2, seeds + 3, &quick)) return NULL;
    if (!records_open(&records, views, buffers, subsequences)) return NULL;
    size_t rows = (size_t)records.sequences.rows;
    int made = 0, room = blob_reserve(&traces, 16 * rows + 1) && blob_reserve(&spans, 8 * rows + 1);
    if (room) {
        ids_t ids = {.seeds = seeds, .traces = (uint64_t *)(void *)traces.data, .spans = (uint64_t *)(void *)spans.data};
        quick = quick && octets_supported();
        Py_BEGIN_ALLOW_THREADS
        made = quick ? octets_ids(&records, &ids) : ids_rows(&records, 0, records.sequences.rows, &ids);
        Py_END_ALLOW_THREADS
    }
    records_close(&records);
    traces.size = 16 * rows;
    spans.size = 8 * rows;
    if (!room)
        PyErr_NoMemory();
    else if (made)
        result = Py_BuildValue("NN", blob_take(&traces), blob_take(&spans));
    else
        result = Py_NewRef(Py_None);
    blob_free(&traces);
    blob_free(&spans);
    return result;
}

static void characters_copy(const views_t *texts, size_t width, uint8_t *out) {
    for (Py_ssize_t row = 0; row < texts->rows; row++, out += width) {
        size_t size;
        const uint8_t *limit, *text = views_at(texts, row, &size, &limit);
        if (size > width) size = width;
        memcpy(out, text, size);
        memset(out + size, 0, width - size);
    }
}

PyObject *kernel_characters(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *views, *buffers, *result = NULL;
    Py_ssize_t width;
    views_t texts;
    blob_t out = {0};
    if (!PyArg_ParseTuple(args, "OOn", &views, &buffers, &width) || !views_open(&texts, views, buffers)) return NULL;
    if (width < 0)
        PyErr_SetString(PyExc_ValueError, "the width must not be negative");
    else if (!blob_reserve(&out, (size_t)texts.rows * (size_t)width + 1))
        PyErr_NoMemory();
    else {
        Py_BEGIN_ALLOW_THREADS
        characters_copy(&texts, (size_t)width, out.data);
        Py_END_ALLOW_THREADS
        out.size = (size_t)texts.rows * (size_t)width;
        result = blob_take(&out);
    }
    blob_free(&out);
    views_close(&texts);
    return result;
}

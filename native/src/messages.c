/* Opens messages as Python describes them: bytes that all messages share, and tables of rows. */

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

/* Opens a piece: bytes that all messages share, or a two-dimensional array of bytes; 0 and an exception for anything else. */
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
    if (view.ndim != 2 || view.itemsize != 1 || (view.strides[1] != 1 && view.shape[1] > 1)) return refuse("a field must be a two-dimensional array of bytes");
    if (view.shape[0] > 1 && view.strides[0] < 0) return refuse("the rows of a field must be in ascending order in memory");
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
        for (Py_ssize_t index = all->start; index <= last; index++) greatest = chosen[index] > greatest ? chosen[index] : greatest;
        last = greatest;
    }
    for (Py_ssize_t index = 0; index < all->opened; index++)
        if (all->fields[index].table.shape[0] != 1 && all->fields[index].table.shape[0] <= last) return refuse("a field has too few rows");
    return 1;
}

static int messages_open(messages_t *all, PyObject *block) {
    PyObject *pieces, *chosen;
    blob_t shared = {0};
    if (!PyArg_ParseTuple(block, "O!Onn", &PyTuple_Type, &pieces, &chosen, &all->start, &all->count)) return 0;
    if (all->start < 0 || all->count < 1) return refuse("a block must have at least one message");
    if (chosen != Py_None && PyObject_GetBuffer(chosen, &all->chosen, PyBUF_SIMPLE)) return 0;
    Py_ssize_t count = PyTuple_Size(pieces);
    all->fields = calloc((size_t)count + 1, sizeof(field_t));
    if (all->fields == NULL) return PyErr_NoMemory() != NULL;
    for (Py_ssize_t index = 0; index < count; index++)
        if (!piece_open(all, PyTuple_GetItem(pieces, index), &shared)) {
            blob_free(&shared);
            return 0;
        }
    if (!shared.size) return refuse("a message must have at least one byte");
    all->width = shared.size;
    all->shared = shared.data;
    return rows_check(all);
}

static int copy_bytes(blob_t *to, const char *text, size_t size) {
    if (!blob_resize(to, size + 8)) return 0;
    memcpy(to->data, text, size);
    to->size = size;
    return 1;
}

int request_open(request_t *request, PyObject *args) {
    const char *texts[2];
    Py_ssize_t sizes[2];
    PyObject *list;
    if (!PyArg_ParseTuple(args, "y#O!y#", &texts[0], &sizes[0], &PyTuple_Type, &list, &texts[1], &sizes[1])) return 0;
    Py_ssize_t count = PyTuple_Size(list);
    request->blocks = calloc((size_t)count + 1, sizeof *request->blocks);
    if (request->blocks == NULL || !copy_bytes(&request->head, texts[0], (size_t)sizes[0]) ||
        !copy_bytes(&request->tail, texts[1], (size_t)sizes[1]))
        return PyErr_NoMemory() != NULL;
    while (request->count < count) {
        PyObject *block = PyTuple_GetItem(list, request->count);
        if (!messages_open(request->blocks + request->count++, block)) return 0;
    }
    return 1;
}

void request_close(request_t *request) {
    for (Py_ssize_t index = 0; index < request->count; index++) messages_close(request->blocks + index);
    free(request->blocks);
    blob_free(&request->head);
    blob_free(&request->tail);
}

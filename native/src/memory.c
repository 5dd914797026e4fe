/* Memory that grows without the GIL and is then handed to Python, and columns of views that come from Python. */

#include "kernel.h"

int blob_reserve(blob_t *blob, size_t more) {
    if (blob->room - blob->size >= more) return 1;
    size_t room = blob->size + more + blob->room / 2;
    uint8_t *data = realloc(blob->data, room);
    if (data == NULL) {
        blob->failed = 1;
        return 0;
    }
    blob->data = data;
    blob->room = room;
    return 1;
}

int blob_resize(blob_t *blob, size_t size) {
    if (size > blob->size) {
        if (!blob_reserve(blob, size - blob->size)) return 0;
        memset(blob->data + blob->size, 0, size - blob->size);
    }
    blob->size = size;
    return 1;
}

void blob_free(blob_t *blob) {
    free(blob->data);
    memset(blob, 0, sizeof *blob);
}

typedef struct {
    PyObject_HEAD
    uint8_t *data;
    Py_ssize_t size;
    PyObject *owner; /* of the bytes; NULL if they are this object's own */
} memory_t;

static PyTypeObject *memory_type;

static void memory_dealloc(PyObject *self) {
    PyTypeObject *type = Py_TYPE(self);
    memory_t *memory = (memory_t *)self;
    if (memory->owner != NULL) Py_DECREF(memory->owner);
    else free(memory->data);
    PyObject_Free(self);
    Py_DECREF(type);
}

static int memory_getbuffer(PyObject *self, Py_buffer *view, int flags) {
    memory_t *memory = (memory_t *)self;
    static uint8_t nothing[1];
    return PyBuffer_FillInfo(view, self, memory->data ? memory->data : nothing, memory->size, 1, flags);
}

static PyType_Slot memory_slots[] = {
    {Py_tp_dealloc, (void *)memory_dealloc},
    {Py_tp_doc, "Read-only bytes that a function of the kernel made, or that belong to a column of Polars."},
    {Py_bf_getbuffer, (void *)memory_getbuffer},
    {0, NULL},
};

static PyType_Spec memory_spec = {
    "stream_native._kernel.Memory", sizeof(memory_t), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, memory_slots,
};

int memory_prepare(void);
int memory_prepare(void) {
    if (memory_type == NULL) memory_type = (PyTypeObject *)PyType_FromSpec(&memory_spec);
    return memory_type != NULL;
}

PyObject *blob_take(blob_t *blob) {
    if (blob->failed) return PyErr_NoMemory();
    memory_t *memory = PyObject_New(memory_t, memory_type);
    if (memory == NULL) return NULL;
    /* Memory grows by half at a time; here it is shrunk to its size. */
    if (blob->room - blob->size > blob->size / 8 && blob->size) {
        uint8_t *data = realloc(blob->data, blob->size);
        if (data != NULL) blob->data = data;
    }
    memory->data = blob->data;
    memory->size = (Py_ssize_t)blob->size;
    memory->owner = NULL;
    memset(blob, 0, sizeof *blob);
    return (PyObject *)memory;
}

PyObject *memory_lent(PyObject *owner, const void *data, Py_ssize_t size) {
    memory_t *memory = PyObject_New(memory_t, memory_type);
    if (memory == NULL) return NULL;
    memory->data = (uint8_t *)data;
    memory->size = size;
    memory->owner = owner;
    Py_INCREF(owner);
    return (PyObject *)memory;
}

PyObject *taken_pair(blob_t *first, blob_t *second) {
    PyObject *one = blob_take(first), *two = blob_take(second);
    PyObject *pair = one != NULL && two != NULL ? PyTuple_Pack(2, one, two) : NULL;
    Py_XDECREF(one);
    Py_XDECREF(two);
    return pair;
}

int views_open(views_t *column, PyObject *views, PyObject *buffers) {
    memset(column, 0, sizeof *column);
    if (!PyTuple_Check(buffers)) {
        PyErr_SetString(PyExc_TypeError, "the buffers of a column of views must be a tuple");
        return 0;
    }
    if (PyObject_GetBuffer(views, &column->views, PyBUF_SIMPLE)) return 0;
    Py_ssize_t count = PyTuple_Size(buffers);
    column->buffers = calloc((size_t)count + 1, sizeof(Py_buffer));
    if (column->buffers == NULL) {
        PyErr_NoMemory();
        views_close(column);
        return 0;
    }
    for (; column->count < count; column->count++)
        if (PyObject_GetBuffer(PyTuple_GetItem(buffers, column->count), column->buffers + column->count, PyBUF_SIMPLE)) {
            views_close(column);
            return 0;
        }
    column->first = column->views.buf;
    column->rows = column->views.len / (Py_ssize_t)sizeof(view_t);
    for (Py_ssize_t row = 0; row < column->rows; row++) {
        const view_t *view = column->first + row;
        if (view->size > INLINE && ((Py_ssize_t)view->buffer >= count ||
                                    (Py_ssize_t)view->offset + (Py_ssize_t)view->size > column->buffers[view->buffer].len)) {
            PyErr_Format(PyExc_ValueError, "the view of row %zd points outside of its buffers", row);
            views_close(column);
            return 0;
        }
    }
    return 1;
}

void views_close(views_t *column) {
    for (Py_ssize_t index = 0; index < column->count; index++) PyBuffer_Release(column->buffers + index);
    free(column->buffers);
    if (column->views.obj != NULL) PyBuffer_Release(&column->views);
    memset(column, 0, sizeof *column);
}

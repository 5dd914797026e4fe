/* A column that Python describes, for Polars: see ``exported`` in module.c. */

#include <stdatomic.h>

#include "arrow.h"

enum { NULLABLE = 2 };

/* Buffers of Python objects, which all arrays of one export share: whoever imports them may keep some and release the others. */
typedef struct {
    atomic_size_t users;
    Py_ssize_t count, room;
    Py_buffer *views;
} shared_t;

static void shared_leave(shared_t *shared) {
    if (atomic_fetch_sub(&shared->users, 1) > 1) return;
    /* Any thread may release the last array. Without an interpreter there is nobody to give the buffers back to. */
    if (Py_IsInitialized()) {
        PyGILState_STATE state = PyGILState_Ensure();
        while (shared->count) PyBuffer_Release(shared->views + --shared->count);
        PyGILState_Release(state);
    }
    free(shared->views);
    free(shared);
}

/* The next buffer of ``object``, which is None for none, in ``*data``; 0 and an exception if it has none. */
static int shared_add(shared_t *shared, PyObject *object, const void **data, int64_t *size) {
    if (object == Py_None) {
        *data = NULL;
        return 1;
    }
    if (shared->count == shared->room) {
        Py_ssize_t room = 2 * shared->room + 16;
        Py_buffer *views = realloc(shared->views, (size_t)room * sizeof *views);
        if (views == NULL) {
            PyErr_NoMemory();
            return 0;
        }
        shared->views = views;
        shared->room = room;
    }
    Py_buffer *view = shared->views + shared->count;
    if (PyObject_GetBuffer(object, view, PyBUF_SIMPLE)) return 0;
    shared->count++;
    *data = view->buf;
    *size = view->len;
    return 1;
}

/* What one array has of its own. */
typedef struct {
    shared_t *shared;
    const void **buffers;
    int64_t *sizes;
} own_t;

static void array_release(struct ArrowArray *array) {
    own_t *own = array->private_data;
    for (int64_t child = 0; child < array->n_children; child++) {
        struct ArrowArray *inner = array->children[child];
        if (inner->release != NULL) inner->release(inner);
        free(inner);
    }
    free(array->children);
    shared_leave(own->shared);
    free(own->buffers);
    free(own->sizes);
    free(own);
    array->release = NULL;
}

static void schema_release(struct ArrowSchema *schema) {
    for (int64_t child = 0; child < schema->n_children; child++) {
        struct ArrowSchema *inner = schema->children[child];
        if (inner->release != NULL) inner->release(inner);
        free(inner);
    }
    free(schema->children);
    free(schema->private_data);
    schema->release = NULL;
}

/* Makes room for children; what is made so far can be released at any time. 0 and an exception if memory runs out. */
static int with_children(struct ArrowSchema *schema, struct ArrowArray *array, Py_ssize_t count) {
    schema->children = calloc((size_t)count + 1, sizeof *schema->children);
    array->children = calloc((size_t)count + 1, sizeof *array->children);
    for (Py_ssize_t child = 0; schema->children != NULL && array->children != NULL && child < count; child++) {
        struct ArrowSchema *inner_schema = calloc(1, sizeof *inner_schema);
        struct ArrowArray *inner_array = calloc(1, sizeof *inner_array);
        if (inner_schema == NULL || inner_array == NULL) {
            free(inner_schema);
            free(inner_array);
            break;
        }
        schema->children[schema->n_children++] = inner_schema;
        array->children[array->n_children++] = inner_array;
    }
    if (array->n_children == count && schema->n_children == count && schema->children != NULL && array->children != NULL) return 1;
    PyErr_NoMemory();
    return 0;
}

/* Format and name in one piece of memory, which belongs to the schema. */
static int with_texts(struct ArrowSchema *schema, const char *format, const char *name) {
    size_t format_size = strlen(format) + 1, name_size = strlen(name) + 1;
    char *texts = malloc(format_size + name_size);
    if (texts == NULL) {
        PyErr_NoMemory();
        return 0;
    }
    schema->format = memcpy(texts, format, format_size);
    schema->name = memcpy(texts + format_size, name, name_size);
    schema->private_data = texts;
    return 1;
}

static int with_buffers(struct ArrowArray *array, own_t *own, PyObject *buffers, int views) {
    Py_ssize_t count = PyTuple_Size(buffers);
    own->buffers = calloc((size_t)count + 2, sizeof *own->buffers);
    own->sizes = calloc((size_t)count + 1, sizeof *own->sizes);
    array->buffers = own->buffers;
    if (own->buffers == NULL || own->sizes == NULL) {
        PyErr_NoMemory();
        return 0;
    }
    for (Py_ssize_t at = 0; at < count; at++)
        if (!shared_add(own->shared, PyTuple_GetItem(buffers, at), own->buffers + at, own->sizes + at)) return 0;
    array->n_buffers = count;
    /* Views are followed by their texts, and by the sizes of these. */
    if (views) own->buffers[array->n_buffers++] = own->sizes + 2;
    return 1;
}

/* Fills both structures, which are zero, from a column; 0 and an exception if it is not one. They have to be released in any case. */
static int filled(struct ArrowSchema *schema, struct ArrowArray *array, shared_t *shared, PyObject *column) {
    const char *name, *format;
    long long rows, nulls;
    PyObject *buffers, *children;
    own_t *own = calloc(1, sizeof *own);
    if (own == NULL) {
        PyErr_NoMemory();
        return 0;
    }
    own->shared = shared;
    atomic_fetch_add(&shared->users, 1);
    array->private_data = own;
    array->release = array_release;
    schema->release = schema_release;
    schema->flags = NULLABLE;
    if (!PyTuple_Check(column)) {
        PyErr_SetString(PyExc_TypeError, "a column must be a tuple");
        return 0;
    }
    if (!PyArg_ParseTuple(column, "ssLLO!O!", &name, &format, &rows, &nulls, &PyTuple_Type, &buffers, &PyTuple_Type, &children)) return 0;
    int views = *format == VIEWS;
    if (PyTuple_Size(buffers) < 1 + views) {
        PyErr_Format(PyExc_ValueError, "%zd buffers are too few for the format %s", PyTuple_Size(buffers), format);
        return 0;
    }
    array->length = rows;
    array->null_count = nulls;
    if (!with_texts(schema, format, name) || !with_buffers(array, own, buffers, views)) return 0;
    Py_ssize_t count = PyTuple_Size(children);
    if (!with_children(schema, array, count)) return 0;
    for (Py_ssize_t child = 0; child < count; child++)
        if (!filled(schema->children[child], array->children[child], shared, PyTuple_GetItem(children, child))) return 0;
    return 1;
}

static void schema_capsule_release(PyObject *capsule) {
    struct ArrowSchema *schema = PyCapsule_GetPointer(capsule, "arrow_schema");
    if (schema == NULL) return;
    if (schema->release != NULL) schema->release(schema);
    free(schema);
}

static void array_capsule_release(PyObject *capsule) {
    struct ArrowArray *array = PyCapsule_GetPointer(capsule, "arrow_array");
    if (array == NULL) return;
    if (array->release != NULL) array->release(array);
    free(array);
}

PyObject *kernel_exported(PyObject *module, PyObject *column) {
    (void)module;
    struct ArrowSchema *schema = calloc(1, sizeof *schema);
    struct ArrowArray *array = calloc(1, sizeof *array);
    shared_t *shared = calloc(1, sizeof *shared);
    PyObject *one = NULL, *two = NULL, *made = NULL;
    if (schema == NULL || array == NULL || shared == NULL) {
        free(schema);
        free(array);
        free(shared);
        return PyErr_NoMemory();
    }
    atomic_init(&shared->users, 1);
    int good = filled(schema, array, shared, column);
    shared_leave(shared);
    if (good && (one = PyCapsule_New(schema, "arrow_schema", schema_capsule_release)) != NULL &&
        (two = PyCapsule_New(array, "arrow_array", array_capsule_release)) != NULL)
        made = PyTuple_Pack(2, one, two);
    if (one == NULL) {
        if (schema->release != NULL) schema->release(schema);
        free(schema);
    }
    if (two == NULL) {
        if (array->release != NULL) array->release(array);
        free(array);
    }
    Py_XDECREF(one);
    Py_XDECREF(two);
    return made;
}

/* Columns of Polars: their memory for Python and for other functions of the kernel, and whether two have the same. */

#include "arrow.h"

static const struct {
    const char *format;
    Py_ssize_t width;
} WIDTHS[] = {{"vu", sizeof(view_t)}, {"vz", sizeof(view_t)}, {"b", 0}, {"c", 1}, {"C", 1}, {"s", 2}, {"S", 2}, {"i", 4}, {"I", 4}, {"l", 8},
              {"L", 8}, {"f", 4}, {"g", 8}, {"tdD", 4}, {"tdm", 8}};

/* Bytes of a value of that format, 0 for bits, -1 if values have no fixed size. */
static Py_ssize_t width_of(const char *format) {
    for (size_t at = 0; at < sizeof WIDTHS / sizeof *WIDTHS; at++)
        if (!strcmp(format, WIDTHS[at].format)) return WIDTHS[at].width;
    /* Timestamps have a zone behind their colon, decimals their digits; durations and times of day are of 64 bits but for two. */
    if (!strncmp(format, "ts", 2) || !strncmp(format, "tD", 2) || !strcmp(format, "ttu") || !strcmp(format, "ttn")) return 8;
    if (!strncmp(format, "d:", 2)) return strchr(format, ',') == strrchr(format, ',') ? 16 : -1;
    return -1;
}

/* Takes the only chunk of a stream; 0 if there is none, or more than one. */
static int chunk_taken(struct ArrowArrayStream *stream, struct ArrowArray *array) {
    struct ArrowArray more = {0};
    if (stream->get_next(stream, array) || array->release == NULL) return 0;
    if (!stream->get_next(stream, &more) && more.release == NULL) return 1;
    if (more.release != NULL) more.release(&more);
    array->release(array);
    return 0;
}

int taken_open(taken_t *taken, PyObject *column) {
    struct ArrowSchema schema = {0};
    memset(taken, 0, sizeof *taken);
    PyObject *capsule = PyObject_CallMethod(column, "__arrow_c_stream__", NULL);
    struct ArrowArrayStream *stream = capsule == NULL ? NULL : PyCapsule_GetPointer(capsule, "arrow_array_stream");
    if (stream == NULL) {
        Py_XDECREF(capsule);
        return -1;
    }
    int good = !stream->get_schema(stream, &schema);
    if (good) {
        taken->width = width_of(schema.format);
        good = taken->width >= 0 && schema.dictionary == NULL && strlen(schema.format) < sizeof taken->format;
        if (good) strcpy(taken->format, schema.format);
        schema.release(&schema);
    }
    good = good && chunk_taken(stream, &taken->array);
    Py_DECREF(capsule);
    if (!good) return 0;
    const uint8_t *values = taken->array.buffers[1];
    int64_t offset = taken->array.offset, rows = taken->array.length;
    taken->first = !taken->width || values == NULL ? values : values + offset * taken->width;
    taken->bytes = (Py_ssize_t)(taken->width ? rows * taken->width : (offset + rows + 7) / 8);
    return 1;
}

void taken_close(taken_t *taken) {
    if (taken->array.release != NULL) taken->array.release(&taken->array);
}

Py_ssize_t taken_texts(const taken_t *taken, const void *const **texts, const int64_t **sizes) {
    if (*taken->format != VIEWS) return 0;
    Py_ssize_t count = (Py_ssize_t)taken->array.n_buffers - 3;
    *texts = (const void *const *)taken->array.buffers + 2;
    *sizes = taken->array.buffers[taken->array.n_buffers - 1];
    return count;
}

/* The capsule that keeps a column's memory. */
static const char KEPT[] = "a column's memory";

static void kept_release(PyObject *capsule) {
    taken_t *taken = PyCapsule_GetPointer(capsule, KEPT);
    if (taken == NULL) return;
    taken_close(taken);
    free(taken);
}

static PyObject *lent_texts(const taken_t *taken, PyObject *owner) {
    const void *const *texts = NULL;
    const int64_t *sizes = NULL;
    Py_ssize_t count = taken_texts(taken, &texts, &sizes);
    if (*taken->format != VIEWS) Py_RETURN_NONE;
    PyObject *made = PyTuple_New(count);
    for (Py_ssize_t at = 0; made != NULL && at < count; at++) {
        PyObject *memory = memory_lent(owner, texts[at], (Py_ssize_t)sizes[at]);
        if (memory == NULL || PyTuple_SetItem(made, at, memory)) Py_CLEAR(made);
    }
    return made;
}

static PyObject *lent(PyObject *column) {
    taken_t *taken = malloc(sizeof *taken);
    if (taken == NULL) return PyErr_NoMemory();
    int good = taken_open(taken, column);
    if (good <= 0) {
        free(taken);
        if (good) return NULL;
        Py_RETURN_NONE;
    }
    PyObject *owner = PyCapsule_New(taken, KEPT, kept_release);
    if (owner == NULL) {
        taken_close(taken);
        free(taken);
        return NULL;
    }
    const struct ArrowArray *array = &taken->array;
    PyObject *validity = NULL, *values = memory_lent(owner, taken->first, taken->bytes), *texts = lent_texts(taken, owner), *made = NULL;
    if (array->null_count && array->buffers[0] != NULL) validity = memory_lent(owner, array->buffers[0], (Py_ssize_t)(array->offset + array->length + 7) / 8);
    else {
        validity = Py_None;
        Py_INCREF(validity);
    }
    if (validity != NULL && values != NULL && texts != NULL)
        made = Py_BuildValue("nLLOnOO", (Py_ssize_t)array->length, (long long)array->null_count, (long long)array->offset, validity, taken->width, values, texts);
    Py_XDECREF(validity);
    Py_XDECREF(values);
    Py_XDECREF(texts);
    Py_DECREF(owner);
    return made;
}

PyObject *kernel_lent(PyObject *module, PyObject *columns) {
    (void)module;
    if (!PyTuple_Check(columns)) {
        PyErr_SetString(PyExc_TypeError, "the columns must be a tuple");
        return NULL;
    }
    Py_ssize_t count = PyTuple_Size(columns);
    PyObject *made = PyTuple_New(count);
    for (Py_ssize_t at = 0; made != NULL && at < count; at++) {
        PyObject *one = lent(PyTuple_GetItem(columns, at));
        if (one == NULL || PyTuple_SetItem(made, at, one)) Py_CLEAR(made);
    }
    return made;
}

/* Whether both columns, without nulls, have equal values and views into the same texts. */
static int same_memory(const taken_t *one, const taken_t *other) {
    const void *const *texts = NULL, *const *others = NULL;
    const int64_t *sizes = NULL, *more = NULL;
    if (strcmp(one->format, other->format) || one->array.length != other->array.length || !one->width) return 0;
    if (one->array.null_count || other->array.null_count) return 0;
    Py_ssize_t count = taken_texts(one, &texts, &sizes);
    if (count != taken_texts(other, &others, &more)) return 0;
    for (Py_ssize_t at = 0; at < count; at++)
        if (texts[at] != others[at] || sizes[at] != more[at]) return 0;
    return !one->bytes || one->first == other->first || !memcmp(one->first, other->first, (size_t)one->bytes);
}

PyObject *kernel_same(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *columns[2];
    taken_t taken[2];
    int same = 0;
    if (!PyArg_ParseTuple(args, "OO", columns, columns + 1)) return NULL;
    int good = taken_open(taken, columns[0]);
    if (good > 0) {
        good = taken_open(taken + 1, columns[1]);
        if (good > 0) {
            same = same_memory(taken, taken + 1);
            taken_close(taken + 1);
        }
        taken_close(taken);
    }
    return good < 0 ? NULL : PyBool_FromLong(same);
}

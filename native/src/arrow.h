/* Columns that pass between Polars and the kernel through Arrow's C data interface, without pyarrow: see the Arrow specification. */

#ifndef STREAM_ARROW_H
#define STREAM_ARROW_H

#include "kernel.h"

/* The interface's structures, whose layout it fixes. */
struct ArrowSchema {
    const char *format, *name, *metadata;
    int64_t flags, n_children;
    struct ArrowSchema **children, *dictionary;
    void (*release)(struct ArrowSchema *);
    void *private_data;
};

struct ArrowArray {
    int64_t length, null_count, offset, n_buffers, n_children;
    const void **buffers;
    struct ArrowArray **children, *dictionary;
    void (*release)(struct ArrowArray *);
    void *private_data;
};

struct ArrowArrayStream {
    int (*get_schema)(struct ArrowArrayStream *, struct ArrowSchema *out);
    int (*get_next)(struct ArrowArrayStream *, struct ArrowArray *out);
    const char *(*get_last_error)(struct ArrowArrayStream *);
    void (*release)(struct ArrowArrayStream *);
    void *private_data;
};

/* The format of a column of views begins so; those of texts and of bytes differ in what follows. */
enum { VIEWS = 'v' };

/* A column of one chunk whose values have a fixed size, bits and views included. */
typedef struct {
    struct ArrowArray array;
    char format[32];
    Py_ssize_t width;     /* bytes of a value; 0 for bits */
    const uint8_t *first; /* the value of the first row; of bits, the byte in which it is after ``array.offset`` bits */
    Py_ssize_t bytes;     /* from there to the last value's end */
} taken_t;

/* Takes a Polars column. 1 if it is as ``taken_t`` says, and then ``taken_close`` has to follow; 0 if it is not; -1 and an exception. */
int taken_open(taken_t *taken, PyObject *column);
void taken_close(taken_t *taken);
/* The buffers of a column of views, and their sizes in ``sizes``; how many. */
Py_ssize_t taken_texts(const taken_t *taken, const void *const **texts, const int64_t **sizes);

#endif

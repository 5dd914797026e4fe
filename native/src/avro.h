/* What avro() reads, compiled from a writer's schema and that of the columns. */

#ifndef STREAM_AVRO_H
#define STREAM_AVRO_H

#include "symbols.h"

/* The numbers stand in stream/transform/decoders/avro_plan.py too. */
enum avro_kind {
    BOOLEAN,
    WHOLE,    /* int or long, times ``unit``, into 32 or 64 bits */
    PROMOTED, /* the same into a float or a double */
    FLOAT, DOUBLE, BYTES, TEXT, UUID,
    FIXED,    /* ``unit`` bytes */
    DECIMAL,  /* up to ``most`` digits; ``unit`` bytes, or 0 where their number stands before them */
    ENUM,
    ARRAY, MAP, RECORD, /* have children: the items, the values, the fields in the writer's order */
    CONSTANT, /* the value of a field that the writer does not know, in the bytes that a writer would have written */
    AVRO_KINDS
};

typedef struct {
    int kind;
    int branches, null, nullable; /* of the union that it stands in: how many, or 0; which is null, or -1; and whether null is welcome */
    int count;
    Py_ssize_t column; /* -1: read past it */
    Py_ssize_t first;  /* of its children, or of its symbols */
    int64_t least, most, unit;
    const uint8_t *constant;
    size_t size;
} avro_node_t;

typedef struct {
    uint8_t head[18]; /* what the record begins with */
    Py_ssize_t root;
} writer_t;

typedef struct {
    form_t *forms;
    avro_node_t *nodes;
    symbols_t symbols;
    writer_t *writers;
    Py_ssize_t form_count, node_count, writer_count;
    size_t head_size;
    PyObject *spec; /* owns the constants */
} avro_plan_t;

#define AVRO_PLAN_NAME "stream_native.avro_plan"

#endif

/* The plan of avro(), compiled from the schemas of the writers and of the columns. */

#ifndef STREAM_AVRO_H
#define STREAM_AVRO_H

#include "symbols.h"

/* Must agree with stream/transform/decoders/avro_plan.py. */
enum avro_kind {
    BOOLEAN,
    WHOLE,    /* int or long, times ``unit``, into 32 or 64 bits */
    PROMOTED, /* int or long, into a float or a double */
    FLOAT, DOUBLE, BYTES, TEXT, UUID,
    FIXED,    /* ``unit`` bytes */
    DECIMAL,  /* up to ``most`` digits; ``unit`` bytes, or 0 if their length precedes them */
    ENUM,
    ARRAY, MAP, RECORD, /* have children: the items, the values, the fields in the writer's order */
    CONSTANT, /* the default of a field that the writer lacks, as a writer would have encoded it */
    AVRO_KINDS
};

typedef struct {
    int kind;
    int branches, null, nullable; /* of the enclosing union: number of branches, or 0; index of null, or -1; whether null is accepted */
    int count;
    Py_ssize_t column; /* -1: skip it */
    Py_ssize_t first;  /* of its children, or of its symbols */
    int64_t least, most, unit;
    const uint8_t *constant;
    size_t size;
} avro_node_t;

typedef struct {
    uint8_t head[18]; /* the prefix of its records */
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

/* The plan of protobuf(), compiled from the descriptor of a message. */

#ifndef STREAM_PROTOBUF_H
#define STREAM_PROTOBUF_H

#include "symbols.h"

/* Must agree with stream/transform/decoders/protobuf_plan.py. */
enum protobuf_kind {
    BOOL, INT32, INT64, UINT32, UINT64, SINT32, SINT64, /* as varints */
    FIXED32, FIXED64, SFIXED32, SFIXED64, FLOAT, DOUBLE,
    ENUM, /* its name, or the number as text */
    TEXT, BYTES,
    STAMP,   /* a google.protobuf.Timestamp; microseconds */
    MESSAGE, /* has children: its fields, by number */
    MAP,     /* has two children: key and value */
    PROTOBUF_KINDS
};
enum { MOST_FIELDS = 1024 };

typedef struct {
    int kind;
    uint32_t number;
    int repeated, presence;
    int slot;          /* its bit among those of its message, set once it was read; the members of a oneof share one */
    int closed;        /* of an enum: it has no other numbers; of a message: it may have extensions, so unknown fields are not skipped */
    int count;
    Py_ssize_t column; /* of a list, if it is repeated */
    Py_ssize_t first;  /* of its children, or of its symbols, by number */
    int32_t fallback;  /* of an enum: its default */
    uint64_t *implicit; /* of a message: bits of the fields that are never null */
} proto_node_t;

typedef struct {
    form_t *forms;
    proto_node_t *nodes;
    int32_t *numbers; /* of the symbols */
    symbols_t symbols;
    Py_ssize_t form_count, node_count;
} proto_plan_t;

#define PROTOBUF_PLAN_NAME "stream_native.protobuf_plan"

#endif

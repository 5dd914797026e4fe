/* The plan by which decode() fills columns. */

#ifndef STREAM_PLAN_H
#define STREAM_PLAN_H

#include "columns.h"

/* Must agree with stream/transform/decoders/json_kernel.py. Kinds from LIST on have children. */
enum kind {
    TEXT, FLAG, INT8, INT16, INT32, INT64, UINT8, UINT16, UINT32, UINT64, FLOAT32, FLOAT64,
    STAMP,  /* ISO 8601 text; microseconds. ``unit`` says whether the Z must be upper-case */
    EPOCH,  /* a whole number of ``unit`` microseconds; microseconds */
    DAY,    /* text; days since 1970 */
    BINARY, /* base64 text */
    RAW,    /* any value, as its JSON text */
    DECIMAL, /* a whole number of 10**-scale, 128 bits; ``unit`` is 256 * precision + scale */
    ITEM,    /* a DynamoDB item, as plain JSON */
    IMAGE,   /* a value that may be such an item, as its JSON text */
    LIST, OBJECT, KINDS
};
enum { MAX_FIELDS = 1024 };
enum { ANY_ZULU = 1, LARGE_ZULU = 2 };

/* Bytes of a value by kind. */
extern const size_t WIDTHS[KINDS];

/* What to do with members that no child names. KEEP: as the text of an object, in the last child, whose own name is ignored. */
enum { IGNORE, REFUSE, KEEP };

/* Whether a member may be absent or null. */
enum { ANY, REQUIRED, NEVER_NULL };

/* Bytes of a value by kind. */
extern const size_t WIDTHS[KINDS];

typedef struct {
    int kind, required, strict, count;
    int64_t unit;
    uint8_t *token; /* the name and a closing quote */
    size_t size;
    uint64_t head, mask; /* its first bytes, up to eight, for fast comparison */
    Py_ssize_t first; /* of its children */
} node_t;

typedef struct {
    node_t *nodes;
    form_t *forms; /* of their columns */
    Py_ssize_t count;
} plan_t;

#define PLAN_NAME "stream_native.plan"

/* Text to microseconds or days since 1970; 0 if values.py would not read it, or readers may differ. */
int read_stamp(const uint8_t *text, size_t size, int64_t *micros);
int read_day(const uint8_t *text, size_t size, int32_t *days);

/* Writes a number into row ``row`` of a numeric column in the column's kind; 0 if it does not fit. */
int put_number(const node_t *node, uint8_t *values, int64_t row, const number_t *number);
#define IS_WHOLE(kind) (((kind) >= INT8 && (kind) <= UINT64) || (kind) == EPOCH)
/* The bytes of canonical base64; 0 for any other text. */
int put_bytes(table_t *table, view_t *view, const string_t *string);

/* Names of one or more objects, by their positions in a text that grows; ``seen`` is a bit set of hashes of the names met so far. */
enum { MAX_NAMES = 256 };
typedef struct {
    int count;
    struct {
        size_t begin, size;
    } names[MAX_NAMES];
} names_t;

/* Adds the quoted name from ``begin`` to the end of ``text``; 0 if a name from index ``first`` on is the same, or there are too many. */
int name_is_new(names_t *names, int first, uint64_t *seen, const blob_t *text, size_t begin);

/* Appends an item's plain JSON to ``out``; 0 if it is not an item, or its names are too many or not distinct. */
int read_item(text_t *text, blob_t *out, int depth);
/* Skips an object of objects. */
int skip_item(text_t *text, int depth);

#endif

/* The columns that decode() fills. */

#ifndef STREAM_PLAN_H
#define STREAM_PLAN_H

#include "columns.h"

/* The numbers stand in stream/transform/decoders/native.py too. Kinds from LIST on have children. */
enum kind {
    TEXT, FLAG, INT8, INT16, INT32, INT64, UINT8, UINT16, UINT32, UINT64, FLOAT32, FLOAT64,
    STAMP,  /* ISO 8601 text; microseconds. ``unit`` says whether Zulu is a large letter */
    EPOCH,  /* a whole number of ``unit`` microseconds; microseconds */
    DAY,    /* text; days since 1970 */
    BINARY, /* base64 text */
    RAW,    /* any value, as the text it is */
    DECIMAL, /* a whole number of 10**-scale, 128 bits; ``unit`` is 256 * precision + scale */
    ITEM,    /* an item of DynamoDB, as plain JSON */
    IMAGE,   /* what may be such an item, as the text it is */
    LIST, OBJECT, KINDS
};
enum { MAX_FIELDS = 1024 };
enum { ANY_ZULU = 1, LARGE_ZULU = 2 };

/* Bytes of a value by kind. */
extern const size_t WIDTHS[KINDS];

/* What becomes of members that no child names: KEEP them as the text of an object, in the last child, whose own name counts for nothing. */
enum { IGNORE, REFUSE, KEEP };

/* Whether a member may be absent, or be null. */
enum { ANY, REQUIRED, NEVER_NULL };

/* Bytes of a value by kind. */
extern const size_t WIDTHS[KINDS];

typedef struct {
    int kind, required, strict, count;
    int64_t unit;
    uint8_t *token; /* the name and a closing quote */
    size_t size;
    uint64_t head, mask; /* its first bytes, up to eight, to tell names apart quickly */
    Py_ssize_t first; /* of its children */
} node_t;

typedef struct {
    node_t *nodes;
    form_t *forms; /* of their columns */
    Py_ssize_t count;
} plan_t;

#define PLAN_NAME "stream_native.plan"

/* Text as microseconds or days since 1970; 0 where it is not in the form that values.py reads, or where readers may differ. */
int read_stamp(const uint8_t *text, size_t size, int64_t *micros);
int read_day(const uint8_t *text, size_t size, int32_t *days);

/* A number into row ``row`` of a column of numbers, as the column's kind has it; 0 where it does not fit. */
int put_number(const node_t *node, uint8_t *values, int64_t row, const number_t *number);
#define IS_WHOLE(kind) (((kind) >= INT8 && (kind) <= UINT64) || (kind) == EPOCH)
/* The bytes that canonical base64 stands for; 0 for another text. */
int put_bytes(table_t *table, view_t *view, const string_t *string);

/* Names of one or more objects, by where they stand in a text that grows; ``seen`` has a bit for each that was met, some of them alike. */
enum { MAX_NAMES = 256 };
typedef struct {
    int count;
    struct {
        size_t begin, size;
    } names[MAX_NAMES];
} names_t;

/* Notes the name from ``begin`` to the end of ``text``, with its quotes; 0 if one from number ``first`` on is the same, or there are too many. */
int name_is_new(names_t *names, int first, uint64_t *seen, const blob_t *text, size_t begin);

/* An item's plain JSON appended to ``out``; 0 where it is no item, or its names are too many or not all different. */
int read_item(text_t *text, blob_t *out, int depth);
/* Behind an object of objects. */
int skip_item(text_t *text, int depth);

#endif

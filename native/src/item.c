/* DynamoDB items, whose values name their types, to the same plain JSON that stream/transform/decoders/dynamodb_stream.py makes. */

#include "plan.h"

typedef struct {
    text_t *text;
    blob_t *out;
    names_t names; /* of the enclosing objects */
} item_t;

static int next_is(text_t *text, int byte) {
    blanks(text);
    if (text->at >= text->end || *text->at != byte) return 0;
    text->at++;
    return 1;
}

static int put_string(item_t *item) {
    string_t string;
    if (!next_is(item->text, '"') || !read_string(item->text, &string)) return 0;
    if (string.escaped) return escape_again(&string, item->out);
    return blob_put(item->out, string.begin - 1, (size_t)(string.close - string.begin) + 2);
}

static int put_digits(item_t *item) {
    string_t string;
    number_t number;
    if (!next_is(item->text, '"') || !read_string(item->text, &string)) return 0;
    text_t digits = {string.begin, string.close, item->text->limit};
    return read_number(&digits, &number) && digits.at == digits.end && blob_put(item->out, string.begin, (size_t)(string.close - string.begin));
}

static int put_flag(item_t *item) {
    blanks(item->text);
    if (literal(item->text, "true", 4)) return blob_put(item->out, "true", 4);
    return literal(item->text, "false", 5) && blob_put(item->out, "false", 5);
}

int name_is_new(names_t *names, int first, uint64_t *seen, const blob_t *text, size_t begin) {
    const uint8_t *plain = text->data;
    size_t size = text->size - begin;
    uint64_t bit = 1ULL << ((size + 3u * plain[begin + 1] + 5u * plain[begin + size / 2] + 11u * plain[begin + size - 2]) & 63);
    if (names->count == MAX_NAMES) return 0;
    for (int place = first; *seen & bit && place < names->count; place++)
        if (names->names[place].size == size && !memcmp(plain + names->names[place].begin, plain + begin, size)) return 0;
    *seen |= bit;
    names->names[names->count].begin = begin;
    names->names[names->count++].size = size;
    return 1;
}

/* Reads a name and its colon; 0 also if the object, whose names begin at index ``first``, already has it. */
static int put_name(item_t *item, int first, uint64_t *seen) {
    size_t begin = item->out->size;
    if (!put_string(item) || !name_is_new(&item->names, first, seen, item->out, begin)) return 0;
    return next_is(item->text, ':') && blob_put(item->out, ":", 1);
}

static int put_value(item_t *item, int depth);

/* A list of values that each name their type, or of values of one type. */
static int put_list(item_t *item, int (*of_kind)(item_t *), int depth) {
    if (depth > MAX_DEPTH || !next_is(item->text, '[') || !blob_put(item->out, "[", 1)) return 0;
    if (next_is(item->text, ']')) return blob_put(item->out, "]", 1);
    do {
        if (!(of_kind != NULL ? of_kind(item) : put_value(item, depth + 1))) return 0;
        if (next_is(item->text, ']')) return blob_put(item->out, "]", 1);
    } while (next_is(item->text, ',') && blob_put(item->out, ",", 1));
    return 0;
}

static int put_members(item_t *item, int depth) {
    int first = item->names.count;
    uint64_t seen = 0;
    if (depth > MAX_DEPTH || !next_is(item->text, '{') || !blob_put(item->out, "{", 1)) return 0;
    if (next_is(item->text, '}')) return blob_put(item->out, "}", 1);
    do {
        if (!put_name(item, first, &seen) || !put_value(item, depth + 1)) return 0;
        if (next_is(item->text, '}')) {
            item->names.count = first;
            return blob_put(item->out, "}", 1);
        }
    } while (next_is(item->text, ',') && blob_put(item->out, ",", 1));
    return 0;
}

static int put_of_kind(item_t *item, const uint8_t *kind, size_t size, int depth) {
    if (size == 4 && !memcmp(kind, "BOOL", 4)) return put_flag(item);
    if (size == 4 && !memcmp(kind, "NULL", 4)) return skip_value(item->text, depth) && blob_put(item->out, "null", 4);
    int (*scalar)(item_t *) = *kind == 'N' ? put_digits : *kind == 'S' || *kind == 'B' ? put_string : NULL;
    if (scalar != NULL && size == 1) return scalar(item);
    if (scalar != NULL && size == 2 && kind[1] == 'S') return put_list(item, scalar, depth);
    if (size == 1 && *kind == 'L') return put_list(item, NULL, depth);
    return size == 1 && *kind == 'M' && put_members(item, depth);
}

static int put_value(item_t *item, int depth) {
    string_t kind;
    if (depth > MAX_DEPTH || !next_is(item->text, '{') || !next_is(item->text, '"') || !read_string(item->text, &kind)) return 0;
    if (kind.close == kind.begin || !next_is(item->text, ':')) return 0;
    return put_of_kind(item, kind.begin, (size_t)(kind.close - kind.begin), depth + 1) && next_is(item->text, '}');
}

int read_item(text_t *text, blob_t *out, int depth) {
    item_t item;
    item.text = text;
    item.out = out;
    item.names.count = 0;
    return put_members(&item, depth);
}

int skip_item(text_t *text, int depth) {
    string_t name;
    if (!next_is(text, '{')) return 0;
    if (next_is(text, '}')) return 1;
    do {
        if (!next_is(text, '"') || !read_string(text, &name) || !next_is(text, ':')) return 0;
        blanks(text);
        if (text->at >= text->end || *text->at != '{' || !skip_value(text, depth + 1)) return 0;
        if (next_is(text, '}')) return 1;
    } while (next_is(text, ','));
    return 0;
}

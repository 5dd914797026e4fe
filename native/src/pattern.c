/* Compresses messages of equal width while assembling them.

   Each message repeats the previous one except where fields differ. So all DEFLATE matches have the same distance, the width of a message,
   and cover the bytes between the fields. Moreover, fields nearly always differ in the same bytes; which ones is learned from the first
   messages. Then the bits of all matches are the same for every message, and the work for a message does not depend on its contents. An
   outlier, which differs in other bytes too, such as a message whose number has one more digit, is written with a pattern of its own. */

#include "pattern.h"

#include "differences.h"

enum { MAX_OUTLIERS = 8, OUTLIER_INTERVAL = 256 };

/* A range of bytes that may differ from message to message; they are written as literals. */
typedef struct {
    const uint8_t *rows; /* the bytes in the first row of their table */
    Py_ssize_t stride;
    size_t begin, size;    /* in a message */
    size_t unchanged;      /* number of unchanging bytes before the range */
    size_t first, matches; /* the pattern's matches that cover these: index of the first, and number */
} range_t;

struct pattern {
    messages_t *all;
    extent_t *extents, *usual; /* of each field */
    range_t *ranges;
    word_t *words;
    match_t *matches;
    uint64_t *factors;
    size_t range_count, word_count;
    size_t tail; /* number of unchanging bytes after the last range */
    size_t run;  /* number of repeated bytes for which no matches have been written yet */
};

static void ranges_find(pattern_t *pattern) {
    const messages_t *all = pattern->all;
    size_t end = 0;
    pattern->range_count = 0;
    for (Py_ssize_t index = 0; index < all->opened; index++) {
        const field_t *field = all->fields + index;
        const extent_t *extent = pattern->extents + index;
        if (!extent->end) continue;
        size_t begin = field->offset + extent->first;
        const uint8_t *rows = (const uint8_t *)field->table.buf + extent->first;
        pattern->ranges[pattern->range_count++] = (range_t){rows, field->stride, begin, extent->end - extent->first, begin - end, 0, 0};
        end = field->offset + extent->end;
    }
    pattern->tail = all->width - end;
}

/* The number of repeated bytes before a range, if the previous message has the same pattern. */
static inline size_t run_before(const pattern_t *pattern, const range_t *range) {
    return range->unchanged + (range == pattern->ranges ? pattern->tail : 0);
}

/* The length of the next match for ``run`` bytes (at least SHORTEST), chosen so that no remainder is too short for a match. */
static inline size_t next_length(size_t run) { return run <= LONGEST ? run : run < LONGEST + SHORTEST ? run - SHORTEST : LONGEST; }

static void tokens_count(const pattern_t *pattern, Py_ssize_t known, counts_t *counts) {
    const messages_t *all = pattern->all;
    uint32_t weight = (uint32_t)(all->count / known);
    for (size_t position = 0; position < all->width; position++) counts->literals[all->shared[position]]++;
    if (known > 1) match_count(counts, SHORTEST, all->width, 1); /* the distance needs a code even if only the last run uses it */
    for (const range_t *range = pattern->ranges; range < pattern->ranges + pattern->range_count; range++) {
        for (size_t run = run_before(pattern, range); run >= SHORTEST; run -= next_length(run))
            match_count(counts, next_length(run), all->width, (uint32_t)all->count);
        for (Py_ssize_t number = 1; number < known; number++) {
            const uint8_t *text = range->rows + row_of(all, number) * range->stride;
            for (size_t position = 0; position < range->size; position++) counts->literals[text[position]] += weight;
        }
    }
}

void pattern_free(pattern_t *pattern) {
    if (pattern == NULL) return;
    free(pattern->extents);
    free(pattern->ranges);
    free(pattern->words);
    free(pattern->matches);
    free(pattern->factors);
    free(pattern);
}

pattern_t *pattern_learn(messages_t *all, counts_t *counts) {
    Py_ssize_t known = all->width > FARTHEST ? 1 : all->count < LEARN_COUNT ? all->count : LEARN_COUNT;
    size_t fields = (size_t)all->opened;
    pattern_t *pattern = calloc(1, sizeof *pattern);
    if (pattern == NULL) return NULL;
    pattern->all = all;
    pattern->extents = malloc((2 * fields + 1) * sizeof *pattern->extents);
    pattern->ranges = malloc((fields + 1) * sizeof *pattern->ranges);
    pattern->words = malloc(MAX_WORDS(all) * sizeof *pattern->words);
    pattern->matches = malloc((4 * fields + all->width / (LONGEST - SHORTEST) + 1) * sizeof *pattern->matches);
    pattern->factors = malloc((all->width + 17) * sizeof *pattern->factors);
    assemble(all, 0);
    if (pattern->extents == NULL || pattern->ranges == NULL || pattern->words == NULL || pattern->matches == NULL ||
        pattern->factors == NULL || !extents_learn(all, known, pattern->extents)) {
        pattern_free(pattern);
        return NULL;
    }
    pattern->usual = pattern->extents + fields;
    checksum_factors(pattern->factors, all->width + 16);
    ranges_find(pattern);
    tokens_count(pattern, known, counts);
    return pattern;
}

/* The bits of the next token for the ``run`` repeated bytes before position ``until``: a match, or a literal if they are too few. */
static inline match_t next_token(const pattern_t *pattern, const codes_t *codes, size_t *run, size_t until) {
    const messages_t *all = pattern->all;
    if (*run >= SHORTEST) {
        size_t length = next_length(*run);
        *run -= length;
        return match_encode(codes, length, all->width);
    }
    code_t code = codes->literals[all->shared[(until + all->width - *run) % all->width]];
    --*run;
    return (match_t){code.bits, code.size};
}

/* Prepares the pattern for the messages after the one in ``shared``. */
static void pattern_prepare(pattern_t *pattern, const codes_t *codes) {
    const messages_t *all = pattern->all;
    size_t matches = 0;
    ranges_find(pattern);
    for (range_t *range = pattern->ranges; range < pattern->ranges + pattern->range_count; range++) {
        range->first = matches;
        for (size_t run = run_before(pattern, range); run;) {
            match_t token = next_token(pattern, codes, &run, range->begin), *last = pattern->matches + matches - 1;
            if (matches > range->first && last->size + token.size <= AT_ONCE) {
                last->bits |= token.bits << last->size;
                last->size += token.size;
            } else
                pattern->matches[matches++] = token;
        }
        range->matches = matches - range->first;
    }
    pattern->word_count = words_find(all, pattern->extents, pattern->words);
    for (word_t *word = pattern->words; word < pattern->words + pattern->word_count; word++)
        word->factor = pattern->factors[all->width - word->position];
}

static inline void run_write(pattern_t *pattern, bits_t *out, const codes_t *codes, size_t run, size_t until) {
    while (run) {
        match_t token = next_token(pattern, codes, &run, until);
        bits_put(out, token.bits, token.size);
    }
}

static inline void ranges_write(pattern_t *pattern, bits_t *out, const codes_t *codes, Py_ssize_t row) {
    const range_t *range = pattern->ranges, *end = range + pattern->range_count;
    if (range < end && pattern->run != pattern->tail) {
        run_write(pattern, out, codes, pattern->run + range->unchanged, range->begin);
        bits_literals(out, codes, range->rows + row * range->stride, range->size);
        range++;
    }
    for (; range < end; range++) {
        const match_t *match = pattern->matches + range->first;
        for (size_t left = range->matches; left; left--, match++) bits_put(out, match->bits, match->size);
        bits_literals(out, codes, range->rows + row * range->stride, range->size);
    }
    pattern->run = pattern->range_count ? pattern->tail : pattern->run + pattern->all->width;
}

/* Writes messages from ``number`` to ``limit``, or until an outlier; returns the number of the next message, or -1 if memory ran out. */
static inline __attribute__((always_inline)) Py_ssize_t write_regular(pattern_t *pattern, member_t *member, Py_ssize_t number,
                                                                      Py_ssize_t limit, int carryless) {
    messages_t *all = pattern->all;
    const word_t *end = pattern->words + pattern->word_count;
    const uint64_t *factors = pattern->factors, first = factors[all->width + 16], second = factors[all->width + 8];
    bits_t out = member->out; /* a local copy stays in registers */
    sum_t base = sum_zero(), sum = sum_zero();
    if (carryless) {
        base = sum_word(base, checksum(0, all->shared, all->width), factors[0]);
        sum = sum_word(sum, member->sum, factors[0]);
    }
    for (; number < limit; number++) {
        Py_ssize_t row = row_of(all, number);
        uint64_t unexpected = 0;
        sum_t own = base;
        for (const word_t *word = pattern->words; word < end; word++) {
            uint64_t changed = word_changes(word, row);
            unexpected |= changed & word->fixed;
            if (carryless) own = sum_word(own, changed, word->factor);
        }
        if (unexpected) break;
        if (!room(member, &out, all->width + pattern->run / 32)) return -1;
        ranges_write(pattern, &out, member->codes, row);
        if (carryless)
            sum = sum_both(sum_advance(sum, first, second), own);
        else {
            assemble(all, number);
            member->sum = checksum(member->sum, all->shared, all->width);
        }
    }
    if (carryless) member->sum = sum_divided(sum);
    member->out = out;
    return number;
}

FOR_CARRYLESS static Py_ssize_t write_carryless(pattern_t *pattern, member_t *member, Py_ssize_t number, Py_ssize_t limit) {
    return write_regular(pattern, member, number, limit, 1);
}

static Py_ssize_t write_portably(pattern_t *pattern, member_t *member, Py_ssize_t number, Py_ssize_t limit) {
    return write_regular(pattern, member, number, limit, 0);
}

/* Widens the extents to cover outlier ``number``, which follows the message in ``shared``. Returns whether outliers are so frequent that the
   extents should stay that wide. */
static int widen(pattern_t *pattern, Py_ssize_t number) {
    const messages_t *all = pattern->all;
    Py_ssize_t row = row_of(all, number);
    int frequent = 0;
    for (Py_ssize_t index = 0; index < all->opened; index++) {
        const field_t *field = all->fields + index;
        extent_t *extent = pattern->extents + index;
        if (!extent_widen(extent, field_at(field, row), all->shared + field->offset, field->width)) continue;
        pattern->usual[index].outliers++;
        extent->outliers++;
        frequent |= extent->outliers > MAX_OUTLIERS + (size_t)number / OUTLIER_INTERVAL;
    }
    return frequent;
}

static Py_ssize_t write_up_to(pattern_t *pattern, member_t *member, Py_ssize_t number, Py_ssize_t limit) {
    return CARRYLESS ? write_carryless(pattern, member, number, limit) : write_portably(pattern, member, number, limit);
}

/* Writes outlier ``number``, then restores the former pattern unless outliers are frequent; 0 if memory ran out. */
static int write_outlier(pattern_t *pattern, member_t *member, Py_ssize_t number) {
    size_t bytes = (size_t)pattern->all->opened * sizeof *pattern->extents;
    assemble(pattern->all, number - 1);
    memcpy(pattern->usual, pattern->extents, bytes);
    int frequent = widen(pattern, number);
    pattern_prepare(pattern, member->codes);
    if (write_up_to(pattern, member, number, number + 1) < 0) return 0;
    if (frequent) return 1;
    memcpy(pattern->extents, pattern->usual, bytes);
    assemble(pattern->all, number);
    pattern_prepare(pattern, member->codes);
    return 1;
}

int pattern_write(pattern_t *pattern, member_t *member) {
    messages_t *all = pattern->all;
    Py_ssize_t number = 0;
    do {
        assemble(all, number);
        if (!room(member, &member->out, all->width)) return 0;
        bits_literals(&member->out, member->codes, all->shared, all->width);
        member->sum = checksum(member->sum, all->shared, all->width);
    } while (++number < all->count && all->width > FARTHEST);
    if (number == all->count) return 1;
    pattern_prepare(pattern, member->codes);
    while ((number = write_up_to(pattern, member, number, all->count)) != all->count)
        if (number < 0 || !write_outlier(pattern, member, number++)) return 0;
    if (!room(member, &member->out, pattern->run / 32)) return 0;
    run_write(pattern, &member->out, member->codes, pattern->run, 0);
    return 1;
}

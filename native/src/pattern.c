/* Messages of one width, compressed while they are put together.

   Each message repeats the one before it wherever no field differs, so all matches of DEFLATE have one distance, the width of a message,
   and lie where the fields are not. Moreover fields differ at the same bytes over and over. Which ones is learnt from the first messages;
   then the bits of all matches are the same for every message, and what is to be done for one does not depend on what is in it. A message
   that differs elsewhere, too, as one does whose number has a digit more, is written by a pattern of its own. */

#include "pattern.h"

#include "differences.h"

enum { ODD_ONES = 8, SELDOM = 256 };

/* Bytes that may differ from message to message. */
typedef struct {
    const uint8_t *rows; /* where they stand in the first row of their table */
    Py_ssize_t stride;
    size_t begin, size;    /* in a message */
    size_t still;          /* so many before them differ in no message */
    size_t first, matches; /* among the pattern's matches, those that say so */
} stretch_t;

struct pattern {
    messages_t *all;
    extent_t *extents, *usual; /* of each field */
    stretch_t *stretches;
    word_t *words;
    match_t *matches;
    uint64_t *factors;
    size_t stretched, worded;
    size_t behind; /* bytes behind the last stretch */
    size_t run;    /* bytes that repeat earlier ones and are still to be written */
};

static void stretches_find(pattern_t *pattern) {
    const messages_t *all = pattern->all;
    size_t end = 0;
    pattern->stretched = 0;
    for (Py_ssize_t index = 0; index < all->opened; index++) {
        const field_t *field = all->fields + index;
        const extent_t *extent = pattern->extents + index;
        if (!extent->end) continue;
        size_t begin = field->offset + extent->first;
        const uint8_t *rows = (const uint8_t *)field->table.buf + extent->first;
        pattern->stretches[pattern->stretched++] = (stretch_t){rows, field->stride, begin, extent->end - extent->first, begin - end, 0, 0};
        end = field->offset + extent->end;
    }
    pattern->behind = all->width - end;
}

/* How many bytes before a stretch repeat earlier ones, if the message before has the same pattern. */
static inline size_t run_before(const pattern_t *pattern, const stretch_t *stretch) {
    return stretch->still + (stretch == pattern->stretches ? pattern->behind : 0);
}

/* The length of the next match of ``run`` bytes, SHORTEST at least. A rest that is too short for a match would cost more than an even cut. */
static inline size_t next_length(size_t run) { return run <= LONGEST ? run : run < LONGEST + SHORTEST ? run - SHORTEST : LONGEST; }

static void tokens_count(const pattern_t *pattern, Py_ssize_t known, counts_t *counts) {
    const messages_t *all = pattern->all;
    uint32_t weight = (uint32_t)(all->count / known);
    for (size_t place = 0; place < all->width; place++) counts->literals[all->shared[place]]++;
    if (known > 1) match_count(counts, SHORTEST, all->width, 1); /* what nothing counts has no code, and a run may also end a block */
    for (const stretch_t *stretch = pattern->stretches; stretch < pattern->stretches + pattern->stretched; stretch++) {
        for (size_t run = run_before(pattern, stretch); run >= SHORTEST; run -= next_length(run))
            match_count(counts, next_length(run), all->width, (uint32_t)all->count);
        for (Py_ssize_t number = 1; number < known; number++) {
            const uint8_t *text = stretch->rows + row_of(all, number) * stretch->stride;
            for (size_t place = 0; place < stretch->size; place++) counts->literals[text[place]] += weight;
        }
    }
}

void pattern_free(pattern_t *pattern) {
    if (pattern == NULL) return;
    free(pattern->extents);
    free(pattern->stretches);
    free(pattern->words);
    free(pattern->matches);
    free(pattern->factors);
    free(pattern);
}

pattern_t *pattern_learn(messages_t *all, counts_t *counts) {
    Py_ssize_t known = all->width > FARTHEST ? 1 : all->count < LEARNT_FROM ? all->count : LEARNT_FROM;
    size_t fields = (size_t)all->opened;
    pattern_t *pattern = calloc(1, sizeof *pattern);
    if (pattern == NULL) return NULL;
    pattern->all = all;
    pattern->extents = malloc((2 * fields + 1) * sizeof *pattern->extents);
    pattern->stretches = malloc((fields + 1) * sizeof *pattern->stretches);
    pattern->words = malloc(WORDS_AT_MOST(all) * sizeof *pattern->words);
    pattern->matches = malloc((4 * fields + all->width / (LONGEST - SHORTEST) + 1) * sizeof *pattern->matches);
    pattern->factors = malloc((all->width + 17) * sizeof *pattern->factors);
    weave(all, 0);
    if (pattern->extents == NULL || pattern->stretches == NULL || pattern->words == NULL || pattern->matches == NULL ||
        pattern->factors == NULL || !extents_learn(all, known, pattern->extents)) {
        pattern_free(pattern);
        return NULL;
    }
    pattern->usual = pattern->extents + fields;
    checksum_factors(pattern->factors, all->width + 16);
    stretches_find(pattern);
    tokens_count(pattern, known, counts);
    return pattern;
}

/* The bits of the next token for ``run`` bytes before place ``until``: a match, or a byte where they are too few. */
static inline match_t next_token(const pattern_t *pattern, const codes_t *codes, size_t *run, size_t until) {
    const messages_t *all = pattern->all;
    if (*run >= SHORTEST) {
        size_t length = next_length(*run);
        *run -= length;
        return match_coded(codes, length, all->width);
    }
    code_t code = codes->literals[all->shared[(until + all->width - *run) % all->width]];
    --*run;
    return (match_t){code.bits, code.size};
}

/* Makes everything ready for messages behind the one that is in ``shared``. */
static void pattern_prepare(pattern_t *pattern, const codes_t *codes) {
    const messages_t *all = pattern->all;
    size_t matches = 0;
    stretches_find(pattern);
    for (stretch_t *stretch = pattern->stretches; stretch < pattern->stretches + pattern->stretched; stretch++) {
        stretch->first = matches;
        for (size_t run = run_before(pattern, stretch); run;) {
            match_t token = next_token(pattern, codes, &run, stretch->begin), *last = pattern->matches + matches - 1;
            if (matches > stretch->first && last->size + token.size <= AT_ONCE) {
                last->bits |= token.bits << last->size;
                last->size += token.size;
            } else
                pattern->matches[matches++] = token;
        }
        stretch->matches = matches - stretch->first;
    }
    pattern->worded = words_find(all, pattern->extents, pattern->words);
    for (word_t *word = pattern->words; word < pattern->words + pattern->worded; word++) word->factor = pattern->factors[all->width - word->place];
}

static inline void run_write(pattern_t *pattern, bits_t *out, const codes_t *codes, size_t run, size_t until) {
    while (run) {
        match_t token = next_token(pattern, codes, &run, until);
        bits_put(out, token.bits, token.size);
    }
}

static inline void stretches_write(pattern_t *pattern, bits_t *out, const codes_t *codes, Py_ssize_t row) {
    const stretch_t *stretch = pattern->stretches, *end = stretch + pattern->stretched;
    if (stretch < end && pattern->run != pattern->behind) {
        run_write(pattern, out, codes, pattern->run + stretch->still, stretch->begin);
        bits_literals(out, codes, stretch->rows + row * stretch->stride, stretch->size);
        stretch++;
    }
    for (; stretch < end; stretch++) {
        const match_t *match = pattern->matches + stretch->first;
        for (size_t left = stretch->matches; left; left--, match++) bits_put(out, match->bits, match->size);
        bits_literals(out, codes, stretch->rows + row * stretch->stride, stretch->size);
    }
    pattern->run = pattern->stretched ? pattern->behind : pattern->run + pattern->all->width;
}

/* Messages from ``number`` on up to ``limit``, or to one that has another pattern: the number of the next; -1 where there is no memory. */
static inline __attribute__((always_inline)) Py_ssize_t write_alike(pattern_t *pattern, member_t *member, Py_ssize_t number, Py_ssize_t limit,
                                                                    int carryless) {
    messages_t *all = pattern->all;
    const word_t *end = pattern->words + pattern->worded;
    const uint64_t *factors = pattern->factors, first = factors[all->width + 16], second = factors[all->width + 8];
    bits_t out = member->out; /* a copy of its own lives in registers */
    sum_t base = sum_zero(), sum = sum_zero();
    if (carryless) {
        base = sum_word(base, checksum(0, all->shared, all->width), factors[0]);
        sum = sum_word(sum, member->sum, factors[0]);
    }
    for (; number < limit; number++) {
        Py_ssize_t row = row_of(all, number);
        uint64_t odd = 0;
        sum_t own = base;
        for (const word_t *word = pattern->words; word < end; word++) {
            uint64_t changed = word_changes(word, row);
            odd |= changed & word->still;
            if (carryless) own = sum_word(own, changed, word->factor);
        }
        if (odd) break;
        if (!room(member, &out, all->width + pattern->run / 32)) return -1;
        stretches_write(pattern, &out, member->codes, row);
        if (carryless)
            sum = sum_both(sum_ahead(sum, first, second), own);
        else {
            weave(all, number);
            member->sum = checksum(member->sum, all->shared, all->width);
        }
    }
    if (carryless) member->sum = sum_divided(sum);
    member->out = out;
    return number;
}

FOR_CARRYLESS static Py_ssize_t write_carryless(pattern_t *pattern, member_t *member, Py_ssize_t number, Py_ssize_t limit) {
    return write_alike(pattern, member, number, limit, 1);
}

static Py_ssize_t write_portably(pattern_t *pattern, member_t *member, Py_ssize_t number, Py_ssize_t limit) {
    return write_alike(pattern, member, number, limit, 0);
}

/* Widens extents by what is odd in message ``number``, behind the one in ``shared``; whether it is odd so often that it had better stay so. */
static int widen(pattern_t *pattern, Py_ssize_t number) {
    const messages_t *all = pattern->all;
    Py_ssize_t row = row_of(all, number);
    int often = 0;
    for (Py_ssize_t index = 0; index < all->opened; index++) {
        const field_t *field = all->fields + index;
        extent_t *extent = pattern->extents + index;
        if (!extent_widen(extent, field_at(field, row), all->shared + field->offset, field->width)) continue;
        pattern->usual[index].odd++;
        extent->odd++;
        often |= extent->odd > ODD_ONES + (size_t)number / SELDOM;
    }
    return often;
}

static Py_ssize_t write_up_to(pattern_t *pattern, member_t *member, Py_ssize_t number, Py_ssize_t limit) {
    return CARRYLESS ? write_carryless(pattern, member, number, limit) : write_portably(pattern, member, number, limit);
}

/* Writes message ``number``, which is odd, and goes on as before unless there are many such ones; 0 where there is no memory. */
static int write_odd(pattern_t *pattern, member_t *member, Py_ssize_t number) {
    size_t bytes = (size_t)pattern->all->opened * sizeof *pattern->extents;
    weave(pattern->all, number - 1);
    memcpy(pattern->usual, pattern->extents, bytes);
    int often = widen(pattern, number);
    pattern_prepare(pattern, member->codes);
    if (write_up_to(pattern, member, number, number + 1) < 0) return 0;
    if (often) return 1;
    memcpy(pattern->extents, pattern->usual, bytes);
    weave(pattern->all, number);
    pattern_prepare(pattern, member->codes);
    return 1;
}

int pattern_write(pattern_t *pattern, member_t *member) {
    messages_t *all = pattern->all;
    Py_ssize_t number = 0;
    do {
        weave(all, number);
        if (!room(member, &member->out, all->width)) return 0;
        bits_literals(&member->out, member->codes, all->shared, all->width);
        member->sum = checksum(member->sum, all->shared, all->width);
    } while (++number < all->count && all->width > FARTHEST);
    if (number == all->count) return 1;
    pattern_prepare(pattern, member->codes);
    while ((number = write_up_to(pattern, member, number, all->count)) != all->count)
        if (number < 0 || !write_odd(pattern, member, number++)) return 0;
    if (!room(member, &member->out, pattern->run / 32)) return 0;
    run_write(pattern, &member->out, member->codes, pattern->run, 0);
    return 1;
}

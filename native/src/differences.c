/* Finds the bytes in which messages differ, by field. */

#include "differences.h"

int extents_learn(const messages_t *all, Py_ssize_t known, extent_t *extents) {
    uint8_t *changed = calloc(all->width, 1);
    if (changed == NULL) return 0;
    for (Py_ssize_t number = 1; number < known; number++) {
        Py_ssize_t row = row_of(all, number);
        for (const field_t *field = all->fields; field < all->fields + all->opened; field++) {
            const uint8_t *text = field_at(field, row);
            for (size_t position = field->offset; field->stride && position < field->offset + field->width; position++)
                changed[position] |= *text++ ^ all->shared[position];
        }
    }
    for (Py_ssize_t index = 0; index < all->opened; index++) {
        const field_t *field = all->fields + index;
        extent_t *extent = extents + index;
        *extent = (extent_t){field->width, 0, 0};
        for (size_t position = 0; position < field->width; position++) {
            if (!changed[field->offset + position]) continue;
            if (!extent->end) extent->first = position;
            extent->end = position + 1;
        }
    }
    free(changed);
    return 1;
}

int extent_widen(extent_t *extent, const uint8_t *now, const uint8_t *before, size_t width) {
    size_t first = 0, end = width;
    while (first < end && now[first] == before[first]) first++;
    while (end > first && now[end - 1] == before[end - 1]) end--;
    if (first == end || (first >= extent->first && end <= extent->end)) return 0;
    if (first < extent->first) extent->first = first;
    if (end > extent->end) extent->end = end;
    return 1;
}

size_t words_find(const messages_t *all, const extent_t *extents, word_t *words) {
    word_t *word = words;
    for (Py_ssize_t index = 0; index < all->opened; index++) {
        const field_t *field = all->fields + index;
        const extent_t *extent = extents + index;
        for (size_t position = 0; field->stride && position < field->width; position += 8) {
            size_t size = field->width - position < 8 ? field->width - position : 8;
            uint64_t fixed = 0, base = load(all->shared + field->offset + position, size);
            for (size_t byte = 0; byte < size; byte++)
                if (position + byte < extent->first || position + byte >= extent->end) fixed |= (uint64_t)255 << 8 * byte;
            const uint8_t *rows = (const uint8_t *)field->table.buf + position;
            *word++ = (word_t){rows, field->stride, size, field->offset + position, base, fixed, 0};
        }
    }
    return (size_t)(word - words);
}

/* What differs between messages, by field. */

#include "differences.h"

int extents_learn(const messages_t *all, Py_ssize_t known, extent_t *extents) {
    uint8_t *changed = calloc(all->width, 1);
    if (changed == NULL) return 0;
    for (Py_ssize_t number = 1; number < known; number++) {
        Py_ssize_t row = row_of(all, number);
        for (const field_t *field = all->fields; field < all->fields + all->opened; field++) {
            const uint8_t *text = field_at(field, row);
            for (size_t place = field->offset; field->stride && place < field->offset + field->width; place++)
                changed[place] |= *text++ ^ all->shared[place];
        }
    }
    for (Py_ssize_t index = 0; index < all->opened; index++) {
        const field_t *field = all->fields + index;
        extent_t *extent = extents + index;
        *extent = (extent_t){field->width, 0, 0};
        for (size_t place = 0; place < field->width; place++) {
            if (!changed[field->offset + place]) continue;
            if (!extent->end) extent->first = place;
            extent->end = place + 1;
        }
    }
    free(changed);
    return 1;
}

int extent_widen(extent_t *extent, const uint8_t *now, const uint8_t *then, size_t width) {
    size_t first = 0, end = width;
    while (first < end && now[first] == then[first]) first++;
    while (end > first && now[end - 1] == then[end - 1]) end--;
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
        for (size_t place = 0; field->stride && place < field->width; place += 8) {
            size_t size = field->width - place < 8 ? field->width - place : 8;
            uint64_t still = 0, base = load(all->shared + field->offset + place, size);
            for (size_t byte = 0; byte < size; byte++)
                if (place + byte < extent->first || place + byte >= extent->end) still |= (uint64_t)255 << 8 * byte;
            const uint8_t *rows = (const uint8_t *)field->table.buf + place;
            *word++ = (word_t){rows, field->stride, size, field->offset + place, base, still, 0};
        }
    }
    return (size_t)(word - words);
}

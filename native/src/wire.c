/* Entries of maps, put in order. */

#include "wire.h"

int entry_push(blob_t *entries, const entry_t *entry) {
    if (!blob_reserve(entries, sizeof *entry)) return 0;
    memcpy(entries->data + entries->size, entry, sizeof *entry);
    entries->size += sizeof *entry;
    return 1;
}

int entries_sort(blob_t *entries, size_t from, int (*compare)(const void *, const void *)) {
    size_t count = (entries->size - from) / sizeof(entry_t);
    if (count < 2) return 1;
    entry_t *first = (entry_t *)(entries->data + from);
    int sorted = 1;
    for (size_t at = 1; at < count && sorted; at++) sorted = compare(first + at - 1, first + at) < 0;
    if (sorted) return 1;
    qsort(first, count, sizeof *first, compare);
    for (size_t at = 1; at < count; at++)
        if (compare(first + at - 1, first + at) == 0) return 0;
    return 1;
}

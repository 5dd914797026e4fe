/* The search for a word in a text. */

#ifndef STREAM_FIND_H
#define STREAM_FIND_H

#include "kernel.h"

/* Whether ``text`` contains ``word``. ``limit``: the end of the memory, which may come after the text. ``middle``: the position in the word of
   two adjacent bytes that are rare in texts. */
typedef int (*contains_t)(const uint8_t *text, size_t size, const uint8_t *limit, const uint8_t *word, size_t length, size_t middle);

/* The fastest way on this processor. */
contains_t contains_best(void);

#endif

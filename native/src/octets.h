/* Hashes and ids of records, eight at a time. */

#ifndef STREAM_OCTETS_H
#define STREAM_OCTETS_H

#include "sequences.h"

/* The functions of sequences.h for ``count`` records, with instructions that not every processor has. */
int octets_supported(void);
int octets_hash(const records_t *records, hash_t *hash);
int octets_ids(const records_t *records, ids_t *ids);

#endif

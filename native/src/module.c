/* The module's functions and what they promise. */

#include "kernel.h"

#if PY_BIG_ENDIAN
#error "views, numbers and bitmaps are written as little-endian machines lay them out"
#endif

int memory_prepare(void);

static PyMethodDef methods[] = {
    {"page", (PyCFunction)kernel_page, METH_O,
     "page(body) -> (begin, end, rows, sequences, keys, texts, arrivals, payloads, pieces) or None\n\n"
     "The records of a GetRecords answer or of a SubscribeToShard event. ``body[:begin] + body[end:]`` is the answer with an empty list\n"
     "in their place. ``sequences``, ``keys``: views into ``texts``; ``payloads``: views into the tuple ``pieces``, decoded; ``arrivals``:\n"
     "int64, milliseconds. None where the answer is not of the plain kind: read it in another way."},
    {"plan", (PyCFunction)kernel_plan, METH_O,
     "plan(spec) -> plan\n\nWhat ``decode`` reads: a node (kind, name, presence, unknown, unit, children), see stream/transform/decoders/native.py."},
    {"decode", (PyCFunction)(void *)kernel_decode, METH_FASTCALL,
     "decode(plan, views, buffers) -> (bad, wrong, side, columns)\n\n"
     "JSON records, one object each, as columns of the plan: a row for each view. Where the plan is of a list a record has an object on each\n"
     "line, blank lines aside. ``bad``: a byte per row, 1 where the kernel does not vouch for the row, whose values are then null and whose\n"
     "list is empty; ``wrong`` counts them. ``side`` is one more buffer for views of text. A column is\n"
     "(rows, nulls, validity, values, children)."},
    {"separated", kernel_separated, METH_VARARGS,
     "separated(plan, views, buffers, separator, quote, header, places, words) -> (bad, wrong, side, columns)\n\n"
     "As ``decode``, of records with separated values on each line, blank lines aside. ``places``: the column of each field, or -1.\n"
     "``header``: the first line of each record, or None. ``words``: texts that mean null."},
    {"avro_plan", (PyCFunction)kernel_avro_plan, METH_O,
     "avro_plan((forms, nodes, writers)) -> plan\n\n"
     "What ``avro`` reads, see stream/transform/decoders/avro_plan.py. A form is (form, width, count, first), a node (kind, branches, null,\n"
     "nullable, column, first, count, least, most, unit, data), a writer (head, root)."},
    {"avro", kernel_avro, METH_VARARGS,
     "avro(plan, views, buffers) -> (bad, wrong, side, columns)\n\nAvro data, as ``decode`` reads JSON records."},
    {"protobuf_plan", (PyCFunction)kernel_protobuf_plan, METH_O,
     "protobuf_plan((forms, nodes)) -> plan\n\n"
     "What ``protobuf`` reads, see stream/transform/decoders/protobuf_plan.py. A node is (kind, number, repeated, presence, slot, closed,\n"
     "column, first, count, fallback, data)."},
    {"protobuf", kernel_protobuf, METH_VARARGS,
     "protobuf(plan, views, buffers) -> (bad, wrong, side, columns)\n\nMessages, as ``decode`` reads JSON records."},
    {"gzip", kernel_gzip, METH_VARARGS,
     "gzip(head, blocks, tail) -> bytes\n\n"
     "``head``, messages and ``tail`` as one gzip member. A block is (pieces, chosen, start, count): pieces are bytes that its messages share\n"
     "and arrays of rows of bytes; message i takes row ``chosen[start + i]``, uint32, or ``start + i`` where ``chosen`` is None."},
    {"zstd", kernel_zstd, METH_VARARGS, "zstd(head, blocks, tail) -> bytes\n\nThe same as one frame of zstd."},
    {"varints", kernel_varints, METH_VARARGS,
     "varints(values) -> bytes\n\nEach of ``values``, uint32, as a varint that is padded to five bytes."},
    {"record_ids", kernel_record_ids, METH_VARARGS,
     "record_ids(views, buffers, subsequences, seeds, quick) -> (traces, spans) or None\n\n"
     "Ids of records as stream/audit/ids.py defines them, 16 and 8 bytes each. ``seeds``: of the two lanes and of the application.\n"
     "``quick``: with AVX-512 if the processor has it. None where a sequence number is not of 1 to 72 digits."},
    {"chunks", kernel_chunks, METH_VARARGS,
     "chunks(columns, quick) -> tuple of (page, nulls, least, greatest)\n\n"
     "Data pages of optional columns of Parquet, not compressed: definition levels and values. Of a tuple of columns each is one of\n\n"
     "    (0, rows, validity, offset, integers, width, signed)   DELTA_BINARY_PACKED; the bounds are those of these\n"
     "    (1, rows, validity, offset, views, buffers)            DELTA_BYTE_ARRAY of the texts that are not null\n"
     "    (2, codes, places)                                     RLE_DICTIONARY\n\n"
     "``validity``: a bitmap whose first bit is ``offset``, or None where nothing is null. ``codes``: uint16, a row each; ``places``: uint16, by\n"
     "code the place of its word in the dictionary, or 65535 for null. A column without values has levels alone. ``quick``: with AVX-512 if the\n"
     "processor has it."},
    {"counted", kernel_counted, METH_VARARGS,
     "counted(written, settled, records) -> int32 or None\n\n"
     "How often each of so many records stands in ``written``, uint32. None unless ``settled`` has exactly those that do not, each once."},
    {"placed", kernel_placed, METH_VARARGS,
     "placed(rows, files, lines, records, first) -> (nulls, validity, file, line)\n\n"
     "Where the first row of each of so many records lies, uint32 both; ``first`` is added to the file. ``rows``, uint32, says of which record\n"
     "each row is: the first is the one that comes first if they are in ascending order, and else the one in the least file and line there."},
    {"find", kernel_find, METH_VARARGS,
     "find(views, buffers, word, quick) -> bytes\n\n"
     "The numbers (uint32) of the rows that hold the word. ``quick``: with AVX-512 if the processor has it."},
    {"characters", kernel_characters, METH_VARARGS,
     "characters(views, buffers, width) -> bytes\n\nThe texts in rows of ``width`` bytes, cut or filled up with zeros."},
    {"set_hash", kernel_set_hash, METH_VARARGS,
     "set_hash(views, buffers, subsequences, quick) -> (high, low) or None\n\n"
     "The hash of a set of records as stream/audit/set_hash.py defines it. ``quick``: with AVX-512 if the processor has it. None where a\n"
     "sequence number is not of 1 to 72 digits."},
    {"keyed_hash", kernel_keyed_hash, METH_VARARGS,
     "keyed_hash(views, buffers, block, length, quick) -> (views, data) or None\n\n"
     "The first ``length`` hex digits of HMAC-SHA256 of each text; ``block`` is the key as RFC 2104 fills it up to 64 bytes. ``quick``: with\n"
     "the processor's instructions for SHA-256 if it has them. None where the digests are more than a column holds."},
    {"keep_last", kernel_keep_last, METH_VARARGS,
     "keep_last(views, buffers, keep, hidden) -> (views, data) or None\n\n"
     "The texts with stars in place of what ``hidden`` says, a byte for each character there can be, but for the last ``keep`` of these. None\n"
     "where they are more than a column holds."},
    {"cut", kernel_cut, METH_VARARGS,
     "cut(views, buffers, chosen, skip, fields) -> tuple of views, into the same buffers, or None\n\n"
     "A field is (separator, skip, kept): it goes to the next ``separator``, an ASCII character, or with -1 to the end; ``skip`` bytes lie\n"
     "between it and the field behind it. ``chosen``: a byte for each row, or None for all. None where a row has not all its separators."},
    {"urls", kernel_urls, METH_VARARGS,
     "urls(views, buffers, wanted) -> (bad, side, wrong, columns)\n\n"
     "URLs to scheme, user, host, port, path, query and fragment, of which those are made that ``wanted`` says. ``bad``: a byte per row, 1\n"
     "where the kernel does not vouch for the row, whose parts are then null; ``wrong`` counts them. ``side`` is one more buffer for views. A\n"
     "column is (nulls, (validity, values)) or (nulls, None)."},
    {"addresses", kernel_addresses, METH_VARARGS,
     "addresses(views, buffers, ranges) -> ((versions, kinds), (views, data)) or None\n\n"
     "IP addresses to version, 0 where the kernel does not vouch for it, kind and network. A range of ``ranges`` is six uint64: first and last\n"
     "address, in halves, version and kind; what is in none is of kind 0. None where networks are more than a column holds."},
    {NULL, NULL, 0, NULL},
};

static int execute(PyObject *module) {
    (void)module;
    return memory_prepare() ? 0 : -1;
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, (void *)execute}, {0, NULL}};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_kernel", "Inner loops.", 0, methods, slots, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__kernel(void) { return PyModuleDef_Init(&definition); }

/* The functions of the module and their docstrings. */

#include "kernel.h"

#if PY_BIG_ENDIAN
#error "views, numbers and bitmaps are written as little-endian machines lay them out"
#endif

int memory_prepare(void);

static PyMethodDef methods[] = {
    {"page", (PyCFunction)kernel_page, METH_O,
     "page(body) -> (begin, end, rows, facts, sequences, keys, texts, arrivals, payloads, pieces) or None\n\n"
     "The records of a GetRecords response or a SubscribeToShard event. ``body[:begin] + body[end:]`` is the same JSON with an empty list of\n"
     "records. ``sequences``, ``keys``: views into ``texts``; ``payloads``: views of the decoded data, into the tuple ``pieces``;\n"
     "``arrivals``: int64, milliseconds. ``facts``: see ``Seen`` in stream/aws/pages.py. None if the JSON is unusual: then parse it with Python."},
    {"plan", (PyCFunction)kernel_plan, METH_O,
     "plan(spec) -> plan\n\nA plan for ``decode``. ``spec`` is a node (kind, name, presence, unknown, unit, children); see\n"
     "stream/transform/decoders/json_kernel.py."},
    {"decode", (PyCFunction)(void *)kernel_decode, METH_FASTCALL,
     "decode(plan, views, buffers) -> (bad, wrong, side, columns)\n\n"
     "Decodes JSON records to the columns of the plan, one row per view. A record is one object; if the plan is of a list, it has one object\n"
     "per line, and blank lines are ignored. ``bad``: one byte per row, 1 if the kernel cannot be sure of the result; then the row's values are\n"
     "null, or its list is empty. ``wrong`` is the number of such rows. ``side``: one more buffer for views of text. A column is\n"
     "(rows, nulls, validity, values, children)."},
    {"separated", kernel_separated, METH_VARARGS,
     "separated(plan, views, buffers, separator, quote, header, places, words) -> (bad, wrong, side, columns)\n\n"
     "Like ``decode``, for records with separated values on each line; blank lines are ignored. ``places``: the column of each field, or -1.\n"
     "``header``: the first line of each record, or None. ``words``: texts that mean null."},
    {"avro_plan", (PyCFunction)kernel_avro_plan, METH_O,
     "avro_plan((forms, nodes, writers)) -> plan\n\n"
     "A plan for ``avro``; see stream/transform/decoders/avro_plan.py. A form is (form, width, count, first), a node (kind, branches, null,\n"
     "nullable, column, first, count, least, most, unit, data), a writer (head, root)."},
    {"avro", kernel_avro, METH_VARARGS,
     "avro(plan, views, buffers) -> (bad, wrong, side, columns)\n\nLike ``decode``, for Avro data."},
    {"protobuf_plan", (PyCFunction)kernel_protobuf_plan, METH_O,
     "protobuf_plan((forms, nodes)) -> plan\n\n"
     "A plan for ``protobuf``; see stream/transform/decoders/protobuf_plan.py. A node is (kind, number, repeated, presence, slot, closed,\n"
     "column, first, count, fallback, data)."},
    {"protobuf", kernel_protobuf, METH_VARARGS,
     "protobuf(plan, views, buffers) -> (bad, wrong, side, columns)\n\nLike ``decode``, for protobuf messages."},
    {"gzip", kernel_gzip, METH_VARARGS,
     "gzip(head, blocks, tail) -> bytes\n\n"
     "``head``, the messages of all blocks, and ``tail`` as one gzip member. A block is (pieces, chosen, start, count). A piece is either bytes\n"
     "that all messages share, or a two-dimensional array of bytes. Message i uses row ``chosen[start + i]`` (uint32) of the arrays, or row\n"
     "``start + i`` if ``chosen`` is None."},
    {"zstd", kernel_zstd, METH_VARARGS, "zstd(head, blocks, tail) -> bytes\n\nLike ``gzip``, as one zstd frame."},
    {"varints", kernel_varints, METH_VARARGS,
     "varints(values) -> bytes\n\nEach of ``values`` (uint32) as a varint, padded to five bytes."},
    {"record_ids", kernel_record_ids, METH_VARARGS,
     "record_ids(views, buffers, subsequences, seeds, quick) -> (traces, spans) or None\n\n"
     "The ids of records, 16 and 8 bytes each, as stream/audit/ids.py defines them. ``seeds``: two for the lanes and two for the application.\n"
     "``quick``: use AVX-512 if the processor has it. None if a sequence number does not have 1 to 72 digits."},
    {"chunks", kernel_chunks, METH_VARARGS,
     "chunks(columns, quick) -> tuple of (page, nulls, least, greatest, suffixes)\n\n"
     "Uncompressed data pages of optional Parquet columns: definition levels and values. Each column is one of\n\n"
     "    (0, rows, validity, offset, integers, width, signed)   DELTA_BINARY_PACKED, with the bounds of the values\n"
     "    (1, rows, validity, offset, views, buffers)            DELTA_BYTE_ARRAY; the views are without nulls\n"
     "    (2, codes, indices)                                    RLE_DICTIONARY\n\n"
     "``suffixes``: where the suffixes of texts begin in the page, else 0. ``validity``: a bitmap whose first bit is ``offset``, or None if no row is null. ``codes``: uint16, one per row; ``indices``: uint16, by\n"
     "code: the index of a word in the dictionary, or 65535 for null. If all rows are null, the page has only levels. ``quick``: use AVX-512\n"
     "if the processor has it."},
    {"digits", kernel_digits, METH_VARARGS,
     "digits(text, quick) -> bytes or None\n\n"
     "Blocks of a zstd frame, the last one marked as such, that hold ``text``. None unless it is at least 256 decimal digits. ``quick``: use\n"
     "BMI2 if the processor has it."},
    {"few", (PyCFunction)kernel_few, METH_O,
     "few(columns) -> tuple of bool\n\n"
     "Whether each column has at most ``most`` distinct values. A column is (values, width, None, most), its values of ``width`` bytes each, or\n"
     "(views, 0, buffers, most); it has no nulls and at most 65534 rows."},
    {"exported", (PyCFunction)kernel_exported, METH_O,
     "exported(column) -> (schema, array)\n\n"
     "A column as capsules of Arrow's C data interface, over the same memory. It is (name, format, rows, nulls, buffers, children): its format\n"
     "as the interface spells it; ``buffers``: the validity or None, and the others, each with the buffer protocol; the sizes of the texts of\n"
     "views are added. Whoever has the capsules trusts that the buffers are as long as the rows need."},
    {"lent", (PyCFunction)kernel_lent, METH_O,
     "lent(columns) -> tuple of (rows, nulls, offset, validity, width, values, texts) or None\n\n"
     "The memory of Polars' columns. ``validity``: a bitmap whose first bit is ``offset``, or None if no row is null. ``values``: ``width`` bytes\n"
     "for each row, or with 0 a bitmap like ``validity``. ``texts``: what views refer to, or None if the values are none. None for a column\n"
     "of more than one chunk, or with values of no fixed size."},
    {"same", kernel_same, METH_VARARGS,
     "same(column, other) -> bool\n\n"
     "Whether two columns of Polars are equal because the values in their memory are, and views refer to the same texts. No text is read, so\n"
     "equal columns may be told apart; so are those with nulls, of more than one chunk, or with values of no fixed size."},
    {"counted", kernel_counted, METH_VARARGS,
     "counted(written, settled, records) -> int32 or None\n\n"
     "How often each of ``records`` record numbers occurs in ``written`` (uint32). None unless ``settled`` (uint32) has exactly those that do\n"
     "not occur, once each."},
    {"placed", kernel_placed, METH_VARARGS,
     "placed(rows, files, lines, records, first) -> (nulls, validity, file, line)\n\n"
     "The file and line (uint32) of the first row of each of ``records`` records; ``first`` is added to the file. ``rows`` (uint32) has the\n"
     "record of each row. If it ascends, a record's first row is the one that comes first, else the one with the lowest file and line."},
    {"places", kernel_places, METH_VARARGS,
     "places(given, kept) -> bytes or None\n\n"
     "The index in ``given`` at which each of ``kept`` first occurs (uint32, all of them); None if one does not occur. Both ascend."},
    {"find", kernel_find, METH_VARARGS,
     "find(views, buffers, word, quick) -> bytes\n\n"
     "The numbers (uint32) of the rows that contain ``word``. ``quick``: use AVX-512 if the processor has it."},
    {"characters", kernel_characters, METH_VARARGS,
     "characters(views, buffers, width) -> bytes\n\nThe texts as rows of ``width`` bytes, truncated or padded with zeros."},
    {"set_hash", kernel_set_hash, METH_VARARGS,
     "set_hash(views, buffers, subsequences, quick) -> (high, low) or None\n\n"
     "The hash of a set of records as stream/audit/set_hash.py defines it. ``quick``: use AVX-512 if the processor has it. None if a sequence\n"
     "number does not have 1 to 72 digits."},
    {"keyed_hash", kernel_keyed_hash, METH_VARARGS,
     "keyed_hash(views, buffers, block, length, quick) -> (views, data) or None\n\n"
     "The first ``length`` hex digits of the HMAC-SHA256 of each text. ``block`` is the key, padded to 64 bytes as RFC 2104 says. ``quick``: use\n"
     "the processor's SHA-256 instructions if it has them. None if the digests are too large for one column."},
    {"keep_last", kernel_keep_last, METH_VARARGS,
     "keep_last(views, buffers, keep, hidden) -> (views, data) or None\n\n"
     "The texts with stars in place of the characters that ``hidden`` marks (one byte per possible character), except for the last ``keep`` of\n"
     "these. None if the texts are too large for one column."},
    {"cut", kernel_cut, METH_VARARGS,
     "cut(views, buffers, chosen, skip, fields) -> tuple of views, into the same buffers, or None\n\n"
     "A field is (separator, skip, kept): it ends before the next ``separator``, an ASCII character, or with -1 at the end of the text; ``skip``\n"
     "bytes are between it and the next field. ``chosen``: one byte per row, or None for all rows. None if a row lacks a separator."},
    {"urls", kernel_urls, METH_VARARGS,
     "urls(views, buffers, wanted) -> (bad, side, wrong, columns)\n\n"
     "Splits URLs into those of scheme, user, host, port, path, query and fragment that ``wanted`` selects. ``bad``: one byte per row, 1 if the\n"
     "kernel cannot be sure of the result; then the row's parts are null. ``wrong`` is the number of such rows. ``side``: one more buffer for\n"
     "views. A column is (nulls, (validity, values)) or (nulls, None)."},
    {"addresses", kernel_addresses, METH_VARARGS,
     "addresses(views, buffers, ranges) -> ((versions, kinds), (views, data)) or None\n\n"
     "The version (0 if the kernel cannot be sure), kind and network of IP addresses. A range of ``ranges`` is six uint64: the first and the\n"
     "last address, in halves, the version and the kind; addresses in no range have kind 0. None if the networks are too large for one column."},
    {NULL, NULL, 0, NULL},
};

static int execute(PyObject *module) {
    (void)module;
    return memory_prepare() ? 0 : -1;
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, (void *)execute}, {0, NULL}};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_kernel", "Inner loops.", 0, methods, slots, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__kernel(void) { return PyModuleDef_Init(&definition); }

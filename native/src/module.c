/* The module's functions and what they promise. */

#include "kernel.h"

#if PY_BIG_ENDIAN
#error "views, numbers and bitmaps are written as little-endian machines lay them out"
#endif

int memory_prepare(void);

static PyMethodDef methods[] = {
    {"page", (PyCFunction)kernel_page, METH_O,
     "page(body) -> (begin, end, rows, sequences, keys, texts, arrivals, payloads, data) or None\n\n"
     "The records of a GetRecords answer or of a SubscribeToShard event. ``body[:begin] + body[end:]`` is the answer with an empty list\n"
     "in their place. ``sequences``, ``keys``: views into ``texts``; ``payloads``: views into ``data``, decoded; ``arrivals``: int64,\n"
     "milliseconds. None where the answer is not of the plain kind: read it in another way."},
    {"plan", (PyCFunction)kernel_plan, METH_O,
     "plan(spec) -> plan\n\nWhat ``decode`` reads: a node (kind, name, required, strict, unit, children), see stream/transform/decoders/native.py."},
    {"decode", (PyCFunction)(void *)kernel_decode, METH_FASTCALL,
     "decode(plan, views, buffers) -> (bad, wrong, side, columns)\n\n"
     "JSON records, one object each, as columns of the plan: a row for each view. ``bad``: a byte per row, 1 where the kernel does not\n"
     "vouch for the row, whose values are then null; ``wrong`` counts them. ``side`` is one more buffer for views of text. A column is\n"
     "(rows, nulls, validity, values, children)."},
    {"gzip", kernel_gzip, METH_VARARGS,
     "gzip(head, blocks, tail) -> bytes\n\n"
     "``head``, messages and ``tail`` as one gzip member. A block is (pieces, chosen, start, count): pieces are bytes that its messages share\n"
     "and arrays of rows of bytes; message i takes row ``chosen[start + i]``, uint32, or ``start + i`` where ``chosen`` is None."},
    {"record_ids", kernel_record_ids, METH_VARARGS,
     "record_ids(views, buffers, subsequences, seeds) -> (traces, spans) or None\n\n"
     "Ids of records as stream/audit/ids.py defines them, 16 and 8 bytes each. ``seeds``: of the two lanes and of the application. None\n"
     "where a sequence number is not of 1 to 72 digits."},
    {"delta_integers", kernel_delta_integers, METH_VARARGS,
     "delta_integers(values, width) -> bytes\n\nIntegers of ``width`` (4 or 8) bytes as Parquet's DELTA_BINARY_PACKED."},
    {"delta_texts", kernel_delta_texts, METH_VARARGS, "delta_texts(views, buffers) -> bytes\n\nThe texts as Parquet's DELTA_BYTE_ARRAY."},
    {"find", kernel_find, METH_VARARGS, "find(views, buffers, word) -> bytes\n\nThe numbers (uint32) of the rows that hold the word."},
    {"characters", kernel_characters, METH_VARARGS,
     "characters(views, buffers, width) -> bytes\n\nThe texts in rows of ``width`` bytes, cut or filled up with zeros."},
    {"set_hash", kernel_set_hash, METH_VARARGS,
     "set_hash(views, buffers, subsequences) -> (high, low) or None\n\n"
     "The hash of a set of records as stream/audit/set_hash.py defines it. None where a sequence number is not of 1 to 72 digits."},
    {NULL, NULL, 0, NULL},
};

static int execute(PyObject *module) {
    (void)module;
    return memory_prepare() ? 0 : -1;
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, (void *)execute}, {0, NULL}};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_kernel", "Inner loops.", 0, methods, slots, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__kernel(void) { return PyModuleDef_Init(&definition); }

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
    {NULL, NULL, 0, NULL},
};

static int execute(PyObject *module) {
    (void)module;
    return memory_prepare() ? 0 : -1;
}

static PyModuleDef_Slot slots[] = {{Py_mod_exec, (void *)execute}, {0, NULL}};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_kernel", "Inner loops.", 0, methods, slots, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__kernel(void) { return PyModuleDef_Init(&definition); }

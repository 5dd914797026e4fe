/* A plan of protobuf() from tuples, checked so that no record can make it write outside of its columns. */

#include "protobuf.h"

static void plan_free(proto_plan_t *plan) {
    if (plan == NULL) return;
    for (Py_ssize_t at = 0; plan->nodes != NULL && at < plan->node_count; at++) free(plan->nodes[at].implicit);
    free(plan->forms);
    free(plan->nodes);
    free(plan->numbers);
    symbols_free(&plan->symbols);
    free(plan);
}

static void capsule_free(PyObject *capsule) { plan_free(PyCapsule_GetPointer(capsule, PROTOBUF_PLAN_NAME)); }

static int refused(const char *what) {
    if (!PyErr_Occurred()) PyErr_Format(PyExc_ValueError, "the Protocol Buffers plan is invalid (%s)", what);
    return 0;
}

/* Adds pairs of number and name, sorted by number. */
static int add_symbols(proto_plan_t *plan, proto_node_t *node, PyObject *pairs) {
    node->first = plan->symbols.count;
    node->count = (int)PyTuple_Size(pairs);
    int32_t *numbers = realloc(plan->numbers, (size_t)(node->first + node->count + 1) * sizeof *numbers);
    if (numbers == NULL) return PyErr_NoMemory() != NULL;
    plan->numbers = numbers;
    for (int at = 0; at < node->count; at++) {
        PyObject *pair = PyTuple_GetItem(pairs, at), *name;
        int32_t *number = numbers + node->first + at;
        if (!PyTuple_Check(pair) || !PyArg_ParseTuple(pair, "iO", number, &name) || !symbols_add(&plan->symbols, name)) return refused("a symbol");
        if (at && number[-1] >= number[0]) return refused("an order");
    }
    return 1;
}

static int add_node(proto_plan_t *plan, proto_node_t *node, PyObject *spec) {
    PyObject *data;
    if (!PyTuple_Check(spec) || !PyArg_ParseTuple(spec, "iIiiiinniiO", &node->kind, &node->number, &node->repeated, &node->presence,
                                                  &node->slot, &node->closed, &node->column, &node->first, &node->count, &node->fallback, &data))
        return refused("a node");
    if (node->kind < 0 || node->kind >= PROTOBUF_KINDS) return refused("a kind");
    return node->kind != ENUM ? 1 : PyTuple_Check(data) ? add_symbols(plan, node, data) : refused("symbols");
}

/* Whether the node's values fit the form of its column. */
static int suits(const proto_node_t *node, const form_t *form) {
    static const size_t widths[PROTOBUF_KINDS] = {
        [INT32] = 4, [INT64] = 8, [UINT32] = 4, [UINT64] = 8, [SINT32] = 4, [SINT64] = 8, [FIXED32] = 4, [FIXED64] = 8,
        [SFIXED32] = 4, [SFIXED64] = 8, [FLOAT] = 4, [DOUBLE] = 8, [ENUM] = 16, [TEXT] = 16, [BYTES] = 16, [STAMP] = 8};
    if (node->kind == BOOL) return form->form == BITS;
    if (node->kind == MESSAGE) return form->form == FIELDS && form->count == node->count;
    if (node->kind == MAP) return form->form == FIELDS && form->count == 2;
    return form->form == VALUES && form->width == widths[node->kind];
}

static int is_key(const proto_node_t *node) {
    return node->number == 1 && !node->repeated && (node->kind <= SFIXED64 || node->kind == TEXT);
}

static int add_masks(const proto_plan_t *plan, proto_node_t *node) {
    size_t words = (size_t)node->count / 64 + 1;
    if ((node->implicit = calloc(words, sizeof *node->implicit)) == NULL) return PyErr_NoMemory() != NULL;
    for (int child = 0; child < node->count; child++) {
        const proto_node_t *field = plan->nodes + node->first + child;
        if (field->slot < 0 || field->slot >= node->count || (!field->presence && field->slot != child)) return refused("a slot");
        if (!field->presence) node->implicit[child / 64] |= 1ULL << (child % 64);
    }
    return 1;
}

/* Checks the node ``at`` and those below it, whose values are in columns ``low`` to ``high``; ``used`` has a byte per column. */
static int check(proto_plan_t *plan, Py_ssize_t at, Py_ssize_t low, Py_ssize_t high, uint8_t *used, int depth) {
    proto_node_t *node = plan->nodes + at;
    if (depth > MAX_DEPTH || node->column < low || node->column >= high || used[node->column]++) return refused("a column");
    const form_t *form = plan->forms + node->column;
    if (node->repeated && form->form != ITEMS) return refused("a column");
    if (node->repeated) form = plan->forms + form->first;
    if (!suits(node, form) || (node->repeated && node->presence) || (node->kind == MAP && !node->repeated)) return refused("a column");
    if (node->kind < MESSAGE) return 1;
    if (node->count < 1 || node->count > MOST_FIELDS || node->first <= at || node->first > plan->node_count - node->count)
        return refused("children");
    for (int child = 0; child < node->count; child++) {
        const proto_node_t *field = plan->nodes + node->first + child;
        if (child && field[-1].number >= field[0].number) return refused("an order");
        if (!check(plan, node->first + child, form->first, form->first + form->count, used, depth + 1)) return 0;
    }
    if (node->kind == MAP) {
        const proto_node_t *key = plan->nodes + node->first;
        if (node->count != 2 || !is_key(key) || key[1].number != 2 || key[1].repeated || key->column != form->first) return refused("a map");
        return 1;
    }
    return add_masks(plan, node);
}

static int fill(proto_plan_t *plan, PyObject *forms, PyObject *nodes) {
    if (!plan->form_count || !plan->node_count) return refused("a size");
    if (!forms_fill(plan->forms, forms)) return 0;
    for (Py_ssize_t at = 0; at < plan->node_count; at++)
        if (!add_node(plan, plan->nodes + at, PyTuple_GetItem(nodes, at))) return 0;
    if (plan->nodes->kind != MESSAGE || plan->nodes->repeated) return refused("a root");
    uint8_t *used = calloc((size_t)plan->form_count, 1);
    if (used == NULL) return PyErr_NoMemory() != NULL;
    int good = check(plan, 0, 0, 1, used, 0);
    free(used);
    return good;
}

PyObject *kernel_protobuf_plan(PyObject *module, PyObject *spec) {
    (void)module;
    PyObject *forms, *nodes;
    if (!PyTuple_Check(spec) || !PyArg_ParseTuple(spec, "OO", &forms, &nodes) || !PyTuple_Check(forms) || !PyTuple_Check(nodes)) {
        refused("a list");
        return NULL;
    }
    proto_plan_t *plan = calloc(1, sizeof *plan);
    if (plan == NULL) return PyErr_NoMemory();
    plan->form_count = PyTuple_Size(forms);
    plan->node_count = PyTuple_Size(nodes);
    plan->forms = calloc((size_t)plan->form_count + 1, sizeof *plan->forms);
    plan->nodes = calloc((size_t)plan->node_count + 1, sizeof *plan->nodes);
    if (plan->forms == NULL || plan->nodes == NULL) PyErr_NoMemory();
    else if (fill(plan, forms, nodes)) {
        PyObject *capsule = PyCapsule_New(plan, PROTOBUF_PLAN_NAME, capsule_free);
        if (capsule != NULL) return capsule;
    }
    plan_free(plan);
    return NULL;
}

/* A plan of avro() from tuples, checked so that no record can make it write outside of its columns or take memory out of proportion. */

#include "avro.h"

static void plan_free(avro_plan_t *plan) {
    if (plan == NULL) return;
    free(plan->forms);
    free(plan->nodes);
    free(plan->writers);
    symbols_free(&plan->symbols);
    Py_XDECREF(plan->spec);
    free(plan);
}

static void capsule_free(PyObject *capsule) { plan_free(PyCapsule_GetPointer(capsule, AVRO_PLAN_NAME)); }

static int refused(const char *what) {
    if (!PyErr_Occurred()) PyErr_Format(PyExc_ValueError, "the Avro plan is invalid (%s)", what);
    return 0;
}

static int add_symbols(avro_plan_t *plan, avro_node_t *node, PyObject *symbols) {
    node->first = plan->symbols.count;
    node->count = (int)PyTuple_Size(symbols);
    for (int at = 0; at < node->count; at++)
        if (!symbols_add(&plan->symbols, PyTuple_GetItem(symbols, at))) return 0;
    return 1;
}

static int add_node(avro_plan_t *plan, avro_node_t *node, PyObject *spec) {
    PyObject *data;
    long long least, most, unit;
    if (!PyTuple_Check(spec) || !PyArg_ParseTuple(spec, "iiiinniLLLO", &node->kind, &node->branches, &node->null, &node->nullable, &node->column,
                                                  &node->first, &node->count, &least, &most, &unit, &data))
        return refused("a node");
    node->least = least;
    node->most = most;
    node->unit = unit;
    if (node->kind < 0 || node->kind >= AVRO_KINDS || unit < 0 || (node->kind == WHOLE && unit != 1 && (unit < 1 || most > INT64_MAX / unit ||
                                                                                                        least < INT64_MIN / unit)))
        return refused("a number");
    if (node->kind == ENUM) return PyTuple_Check(data) ? add_symbols(plan, node, data) : refused("symbols");
    if (node->kind == CONSTANT) {
        char *bytes;
        Py_ssize_t size;
        if (PyBytes_AsStringAndSize(data, &bytes, &size)) return 0;
        node->constant = (const uint8_t *)bytes;
        node->size = (size_t)size;
    }
    return 1;
}

/* Whether a value of the node takes at least one byte of a record. */
static int takes_bytes(const avro_plan_t *plan, const avro_node_t *node) {
    if (node->branches) return 1;
    if (node->kind == CONSTANT) return 0;
    if (node->kind == FIXED) return node->unit > 0;
    if (node->kind != RECORD) return 1;
    for (int child = 0; child < node->count; child++)
        if (takes_bytes(plan, plan->nodes + node->first + child)) return 1;
    return 0;
}

/* Whether the node's values fit the form of its column. */
static int suits(const avro_plan_t *plan, const avro_node_t *node) {
    const form_t *form = plan->forms + node->column;
    switch (node->kind) {
    case BOOLEAN: return form->form == BITS;
    case WHOLE: case PROMOTED: case FLOAT: return form->form == VALUES && (form->width == 4 || form->width == 8);
    case DOUBLE: return form->form == VALUES && form->width == 8;
    case ARRAY: return form->form == ITEMS;
    case MAP: {
        if (form->form != ITEMS) return 0;
        const form_t *entry = plan->forms + form->first;
        return entry->form == FIELDS && entry->count == 2 && plan->forms[entry->first].form == VALUES && plan->forms[entry->first].width == 16;
    }
    case RECORD: return form->form == FIELDS;
    case CONSTANT: return 1;
    default: return form->form == VALUES && form->width == 16;
    }
}

/* Whether the child's column has a row wherever the child has a value. */
static int belongs(const avro_plan_t *plan, const avro_node_t *node, const avro_node_t *child) {
    if (node->column < 0 || node->kind == CONSTANT) return child->column == node->column;
    const form_t *form = plan->forms + node->column;
    if (node->kind == ARRAY) return child->column == form->first;
    if (node->kind == MAP) return child->column == plan->forms[form->first].first + 1;
    return child->column == -1 || (child->column >= form->first && child->column < form->first + form->count);
}

/* Constants are never text, whose view would point into the record, and lists only if they are empty. */
static int is_constant(const avro_node_t *node, const avro_node_t *child) {
    if (child->kind == ARRAY || child->kind == MAP) return !child->branches && node->size == 1 && !node->constant[0];
    return !child->branches && (child->kind <= DOUBLE || child->kind == ENUM);
}

/* Checks the node ``at`` and those below it; ``used`` has a byte per column. */
static int check(const avro_plan_t *plan, Py_ssize_t at, uint8_t *used, int depth) {
    const avro_node_t *node = plan->nodes + at;
    int single = node->kind == ARRAY || node->kind == MAP || node->kind == CONSTANT;
    if (depth > MAX_DEPTH || node->column < -1 || node->column >= plan->form_count) return refused("a column");
    if (node->column >= 0 && (!suits(plan, node) || (node->kind != CONSTANT && used[node->column]++))) return refused("a column");
    if (node->kind < ARRAY) return 1;
    if (node->count < 0 || (single && node->count != 1) || (node->count && (node->first <= at || node->first > plan->node_count - node->count)))
        return refused("children");
    for (int child = 0; child < node->count; child++) {
        const avro_node_t *below = plan->nodes + node->first + child;
        if (!belongs(plan, node, below)) return refused("a column");
        if (node->kind == CONSTANT && !is_constant(node, below)) return refused("a constant");
        if (!check(plan, node->first + child, used, depth + 1)) return 0;
        /* Only what has been checked is known to have its children where it says. */
        if (node->kind == ARRAY && !takes_bytes(plan, below)) return refused("items of no bytes");
    }
    return 1;
}

static int add_writer(avro_plan_t *plan, Py_ssize_t at, PyObject *spec) {
    writer_t *writer = plan->writers + at;
    PyObject *head;
    char *bytes;
    Py_ssize_t size;
    if (!PyTuple_Check(spec) || !PyArg_ParseTuple(spec, "On", &head, &writer->root) || PyBytes_AsStringAndSize(head, &bytes, &size))
        return refused("a writer");
    if (at == 0) plan->head_size = (size_t)size;
    if (size > (Py_ssize_t)sizeof writer->head || (size_t)size != plan->head_size || writer->root < 0 || writer->root >= plan->node_count)
        return refused("a writer");
    memcpy(writer->head, bytes, (size_t)size);
    uint8_t *used = calloc((size_t)plan->form_count, 1);
    if (used == NULL) return PyErr_NoMemory() != NULL;
    const avro_node_t *root = plan->nodes + writer->root;
    int good = root->kind == RECORD && root->column == 0 && !root->branches ? check(plan, writer->root, used, 0) : refused("a root");
    free(used);
    return good;
}

static int fill(avro_plan_t *plan, PyObject *forms, PyObject *nodes, PyObject *writers) {
    if (!forms_fill(plan->forms, forms)) return 0;
    for (Py_ssize_t at = 0; at < plan->node_count; at++)
        if (!add_node(plan, plan->nodes + at, PyTuple_GetItem(nodes, at))) return 0;
    for (Py_ssize_t at = 0; at < plan->writer_count; at++)
        if (!add_writer(plan, at, PyTuple_GetItem(writers, at))) return 0;
    return plan->form_count && plan->writer_count ? 1 : refused("a size");
}

PyObject *kernel_avro_plan(PyObject *module, PyObject *spec) {
    (void)module;
    PyObject *forms, *nodes, *writers;
    if (!PyTuple_Check(spec) || !PyArg_ParseTuple(spec, "OOO", &forms, &nodes, &writers)) return NULL;
    if (!PyTuple_Check(forms) || !PyTuple_Check(nodes) || !PyTuple_Check(writers)) {
        refused("a list");
        return NULL;
    }
    avro_plan_t *plan = calloc(1, sizeof *plan);
    if (plan == NULL) return PyErr_NoMemory();
    plan->form_count = PyTuple_Size(forms);
    plan->node_count = PyTuple_Size(nodes);
    plan->writer_count = PyTuple_Size(writers);
    plan->forms = calloc((size_t)plan->form_count + 1, sizeof *plan->forms);
    plan->nodes = calloc((size_t)plan->node_count + 1, sizeof *plan->nodes);
    plan->writers = calloc((size_t)plan->writer_count + 1, sizeof *plan->writers);
    Py_INCREF(spec);
    plan->spec = spec;
    if (plan->forms == NULL || plan->nodes == NULL || plan->writers == NULL) PyErr_NoMemory();
    else if (fill(plan, forms, nodes, writers)) {
        PyObject *capsule = PyCapsule_New(plan, AVRO_PLAN_NAME, capsule_free);
        if (capsule != NULL) return capsule;
    }
    plan_free(plan);
    return NULL;
}

/* Compiles the plan of decode() from nested tuples: a tree of nodes in one array, parents before their children. */

#include "plan.h"

const size_t WIDTHS[KINDS] = {16, 0, 1, 2, 4, 8, 1, 2, 4, 8, 4, 8, 8, 8, 4, 16, 16, 16, 16, 16, 8, 0};

static void plan_free(plan_t *plan) {
    if (plan == NULL) return;
    for (Py_ssize_t index = 0; index < plan->count; index++) free(plan->nodes[index].token);
    free(plan->nodes);
    free(plan->forms);
    free(plan);
}

static void capsule_free(PyObject *capsule) { plan_free(PyCapsule_GetPointer(capsule, PLAN_NAME)); }

static Py_ssize_t nodes_in(PyObject *spec, int depth) {
    Py_ssize_t count = 1;
    if (!PyTuple_Check(spec) || PyTuple_Size(spec) != 6 || !PyTuple_Check(PyTuple_GetItem(spec, 5)) || depth > MAX_DEPTH / 2) {
        PyErr_SetString(PyExc_ValueError, "a node of a plan must be (kind, name, presence, unknown, unit, children)");
        return -1;
    }
    PyObject *children = PyTuple_GetItem(spec, 5);
    for (Py_ssize_t index = 0; index < PyTuple_Size(children); index++) {
        Py_ssize_t more = nodes_in(PyTuple_GetItem(children, index), depth + 1);
        if (more < 0) return -1;
        count += more;
    }
    return count;
}

static int fill(plan_t *plan, Py_ssize_t at, PyObject *spec, Py_ssize_t *next) {
    node_t *node = plan->nodes + at;
    PyObject *name = PyTuple_GetItem(spec, 1), *children = PyTuple_GetItem(spec, 5);
    char *text;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize(name, &text, &size)) return 0;
    node->kind = (int)PyLong_AsLong(PyTuple_GetItem(spec, 0));
    node->required = (int)PyLong_AsLong(PyTuple_GetItem(spec, 2));
    node->strict = (int)PyLong_AsLong(PyTuple_GetItem(spec, 3));
    node->unit = PyLong_AsLongLong(PyTuple_GetItem(spec, 4));
    node->count = (int)PyTuple_Size(children);
    if (PyErr_Occurred()) return 0;
    if (node->kind < 0 || node->kind >= KINDS || node->count > MAX_FIELDS || node->unit < 1 || (node->kind == LIST && node->count != 1) ||
        (node->kind < LIST && node->count)) {
        PyErr_SetString(PyExc_ValueError, "a node of a plan has an invalid kind, unit or number of children");
        return 0;
    }
    if ((node->token = malloc((size_t)size + 2)) == NULL) {
        PyErr_NoMemory();
        return 0;
    }
    memcpy(node->token, text, (size_t)size);
    node->token[size] = '"';
    node->size = (size_t)size + 1;
    memcpy(&node->head, node->token, node->size < 8 ? node->size : 8);
    node->mask = node->size < 8 ? (1ULL << 8 * node->size) - 1 : ~0ULL;
    node->first = *next;
    *next += node->count;
    int form = node->kind == FLAG ? BITS : node->kind == LIST ? ITEMS : node->kind == OBJECT ? FIELDS : VALUES;
    plan->forms[at] = (form_t){form, node->count, WIDTHS[node->kind], node->first};
    for (int index = 0; index < node->count; index++)
        if (!fill(plan, node->first + index, PyTuple_GetItem(children, index), next)) return 0;
    if (node->strict != KEEP || (node->kind == OBJECT && node->count && plan->nodes[node->first + node->count - 1].kind == TEXT)) return 1;
    PyErr_SetString(PyExc_ValueError, "members that no child names are kept in the last child, which must be a text");
    return 0;
}

PyObject *kernel_plan(PyObject *module, PyObject *spec) {
    (void)module;
    Py_ssize_t count = nodes_in(spec, 0), next = 1;
    if (count < 0) return NULL;
    plan_t *plan = calloc(1, sizeof *plan);
    if (plan == NULL || (plan->nodes = calloc((size_t)count, sizeof *plan->nodes)) == NULL ||
        (plan->forms = calloc((size_t)count, sizeof *plan->forms)) == NULL) {
        plan_free(plan);
        return PyErr_NoMemory();
    }
    plan->count = count;
    int filled = fill(plan, 0, spec, &next);
    const node_t *root = plan->nodes;
    if (filled && root->kind != OBJECT && !(root->kind == LIST && plan->nodes[root->first].kind == OBJECT)) {
        PyErr_SetString(PyExc_ValueError, "the root of a plan must be an object, or a list of objects");
        filled = 0;
    }
    PyObject *capsule = filled ? PyCapsule_New(plan, PLAN_NAME, capsule_free) : NULL;
    if (capsule == NULL) plan_free(plan);
    return capsule;
}

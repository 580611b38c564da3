# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False
"""The codec, fast: the same functions, results and errors as `_codec_py`, which explains them.

A layout becomes a tree of C structs, walked once per packet. Nothing below the `def` functions raises: what went
wrong is noted in a Fault, each level on the way back adds its place in the path, and the top makes the text.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.object cimport PyObject, PyTypeObject
from libc.math cimport isfinite
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy

from neo_common.errors import LocalProtocolError, RemoteProtocolError
from neo_common.model._keys_c import decode_update, encode_update
from neo_common.model.partition_table import TableUpdate
from neo_common.wire.layout import is_struct, layout_of
from neo_common.wire.schema import CODES, FRAME_MAX as _FRAME_MAX, PACKETS, Kind

cdef extern from *:
    """
    #ifndef NEO_SOURCE
    #define NEO_SOURCE ""
    #endif
    static inline void neo_put16(uint8_t *to, uint16_t v) { to[0] = v >> 8; to[1] = v; }
    static inline void neo_put32(uint8_t *to, uint32_t v) {
        to[0] = v >> 24; to[1] = v >> 16; to[2] = v >> 8; to[3] = v;
    }
    static inline void neo_put64(uint8_t *to, uint64_t v) { neo_put32(to, v >> 32); neo_put32(to + 4, v); }
    static inline uint16_t neo_get16(const uint8_t *p) { return (uint16_t)p[0] << 8 | p[1]; }
    static inline uint32_t neo_get32(const uint8_t *p) {
        return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
    }
    static inline uint64_t neo_get64(const uint8_t *p) { return (uint64_t)neo_get32(p) << 32 | neo_get32(p + 4); }
    /* As tuple.__new__ does for a subclass, without the tuple in between. */
    static inline PyObject *neo_alloc(PyTypeObject *cls, Py_ssize_t n) { return cls->tp_alloc(cls, n); }
    static inline PyObject *neo_ref(PyObject *o) { Py_INCREF(o); return o; }
    static inline void neo_unref(PyObject *o) { Py_XDECREF(o); }
    #define neo_is(o, cls) PyObject_TypeCheck(o, cls)
    #define neo_is_int(o) (PyLong_Check(o) && !PyBool_Check(o))
    """
    const char* NEO_SOURCE
    void put16 "neo_put16"(uint8_t* to, uint16_t value) noexcept nogil
    void put32 "neo_put32"(uint8_t* to, uint32_t value) noexcept nogil
    void put64 "neo_put64"(uint8_t* to, uint64_t value) noexcept nogil
    uint16_t get16 "neo_get16"(const uint8_t* at) noexcept nogil
    uint32_t get32 "neo_get32"(const uint8_t* at) noexcept nogil
    uint64_t get64 "neo_get64"(const uint8_t* at) noexcept nogil
    PyObject* alloc_struct "neo_alloc"(PyTypeObject* cls, Py_ssize_t count) noexcept
    PyObject* new_ref "neo_ref"(PyObject* value) noexcept
    void unref "neo_unref"(PyObject* value) noexcept
    bint is_instance "neo_is"(PyObject* value, PyTypeObject* cls) noexcept
    bint is_int "neo_is_int"(PyObject* value) noexcept

cdef extern from "Python.h":
    # By pointer: no reference counting and no exceptions but our own.
    PyObject* Py_True
    PyObject* Py_False
    PyObject* Py_None
    bint PyBool_Check(PyObject*) noexcept
    bint PyLong_Check(PyObject*) noexcept
    bint PyFloat_Check(PyObject*) noexcept
    bint PyBytes_Check(PyObject*) noexcept
    bint PyUnicode_Check(PyObject*) noexcept
    bint PyTuple_Check(PyObject*) noexcept
    unsigned long long PyLong_AsUnsignedLongLong(PyObject*) noexcept
    long PyLong_AsLong(PyObject*) noexcept
    double PyLong_AsDouble(PyObject*) noexcept
    double PyFloat_AsDouble(PyObject*) noexcept
    PyObject* PyLong_FromUnsignedLong(unsigned long) noexcept
    PyObject* PyLong_FromUnsignedLongLong(unsigned long long) noexcept
    PyObject* PyFloat_FromDouble(double) noexcept
    PyObject* PyBytes_FromStringAndSize(const char*, Py_ssize_t) noexcept
    char* PyBytes_AS_STRING(PyObject*) noexcept
    Py_ssize_t PyBytes_GET_SIZE(PyObject*) noexcept
    int _PyBytes_Resize(PyObject**, Py_ssize_t) noexcept
    PyObject* PyUnicode_DecodeUTF8(const char*, Py_ssize_t, const char*) noexcept
    const char* PyUnicode_AsUTF8AndSize(PyObject*, Py_ssize_t*) noexcept
    PyObject* PyTuple_New(Py_ssize_t) noexcept
    Py_ssize_t PyTuple_GET_SIZE(PyObject*) noexcept
    PyObject* PyTuple_GET_ITEM(PyObject*, Py_ssize_t) noexcept
    void PyTuple_SET_ITEM(PyObject*, Py_ssize_t, PyObject*) noexcept
    PyObject* PyErr_Occurred() noexcept
    bint PyErr_ExceptionMatches(PyObject*) noexcept
    void PyErr_Clear() noexcept

SOURCE = NEO_SOURCE.decode()
"""SHA-256 of the .pyx that this was built from."""

cdef enum:  # as layout.Wire; a test compares
    U8 = 0
    U16 = 1
    U32 = 2
    U64 = 3
    BOOL = 4
    DOUBLE = 5
    BYTES16 = 6
    BYTES = 7
    TEXT = 8
    TABLE = 9
    ENUM = 10
    STRUCT = 11
    TUPLE = 12
    OPTIONAL = 13

WIRE = {
    "U8": U8, "U16": U16, "U32": U32, "U64": U64, "BOOL": BOOL, "DOUBLE": DOUBLE, "BYTES16": BYTES16, "BYTES": BYTES,
    "TEXT": TEXT, "TABLE": TABLE, "ENUM": ENUM, "STRUCT": STRUCT, "TUPLE": TUPLE, "OPTIONAL": OPTIONAL,
}
"""The constants above, for the test."""

cdef enum:
    HEADER = 10
    SMALL = 1024  # bytes of a packet that need no growing
    KEPT = 65536  # a FrameReader gives larger buffers back
    DEPTH = 32  # of layouts

cdef uint64_t U32_MAX = 0xFFFFFFFF
cdef uint64_t FRAME_MAX = _FRAME_MAX
cdef uint64_t[4] TOPS = [0xFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF]

# ------------------------------------------------------------------------------------------------ plans

cdef struct Node:
    int wire
    Py_ssize_t min_size
    Py_ssize_t count  # of fields
    Node** fields
    Node* item
    PyTypeObject* cls
    PyObject** members  # of an ENUM: 256, NULL where there is none
    PyObject* layout

cdef class Plan:
    """A class that was compiled. Plans, like classes, stay for ever."""

    cdef Node* node
    cdef object cls
    cdef str name
    cdef int code  # -1: not a packet
    cdef bint is_notification

cdef dict _plans = {}
cdef dict _kept = {}  # what the nodes point to
cdef PyObject* _packets[65536]  # code to Plan, borrowed from _plans


cdef Node* _compile(object layout, int depth) except NULL:
    cdef Node* node
    cdef Py_ssize_t i
    if depth > DEPTH:
        raise TypeError(f"{layout.name} is nested too deeply")
    node = <Node*>calloc(1, sizeof(Node))
    if node == NULL:
        raise MemoryError()
    _kept[<size_t>node] = layout
    node.layout = <PyObject*>layout
    node.wire = layout.wire
    node.min_size = layout.min_size
    if layout.cls is not None:
        node.cls = <PyTypeObject*>layout.cls
    if node.wire == TABLE:
        node.cls = <PyTypeObject*>TableUpdate
    elif node.wire == ENUM:
        node.members = <PyObject**>calloc(256, sizeof(PyObject*))
        if node.members == NULL:
            raise MemoryError()
        for member in layout.cls:
            i = member
            node.members[i] = <PyObject*>member
    elif node.wire == STRUCT:
        node.count = len(layout.fields)
        node.fields = <Node**>calloc(node.count + 1, sizeof(Node*))
        if node.fields == NULL:
            raise MemoryError()
        for i in range(node.count):
            node.fields[i] = _compile(layout.fields[i].layout, depth + 1)
    elif node.wire == TUPLE or node.wire == OPTIONAL:
        node.item = _compile(layout.item, depth + 1)
    return node


cdef Plan _plan(object cls):
    """Return the plan of *cls*. Raises: TypeError when it has no layout."""
    cdef Plan plan = <Plan>_plans.get(cls)
    if plan is None:
        layout = layout_of(cls)
        plan = Plan.__new__(Plan)
        plan.cls = cls
        plan.name = layout.name
        plan.node = _compile(layout, 0)
        plan.code = CODES.get(cls, -1)
        plan.is_notification = plan.code >= 0 and PACKETS[plan.code].kind is Kind.NOTIFICATION
        _plans[cls] = plan
    return plan


cdef int _compile_packets() except -1:
    cdef Plan plan
    for code, info in PACKETS.items():
        plan = _plan(info.cls)
        _packets[<int>code] = <PyObject*>plan
    return 0


_compile_packets()

# ------------------------------------------------------------------------------------------------ faults

cdef enum:
    NONE = 0
    PYTHON  # a Python exception is set, or in `error`
    WRONG_TYPE
    RANGE
    TOO_LARGE
    NOT_FINITE
    NOT_16
    NOT_UTF8
    BAD_UTF8
    BAD_TABLE
    FIELDS
    LENGTH
    SHORT
    COUNT
    FLAG
    NOT_MEMBER
    TRAILING

cdef struct Step:
    Node* node
    Py_ssize_t index

cdef struct Fault:
    int kind
    uint64_t a
    uint64_t b
    Node* node
    PyObject* value  # borrowed
    PyObject* error  # owned
    int depth
    Step[DEPTH + 2] path  # innermost first


cdef inline int _fail(Fault* fault, int kind, uint64_t a, uint64_t b) noexcept:
    fault.kind = kind
    fault.a = a
    fault.b = b
    return -1


cdef inline int _misfit(Fault* fault, int kind, Node* node, PyObject* value) noexcept:
    fault.kind = kind
    fault.node = node
    fault.value = value
    return -1


cdef inline void _within(Fault* fault, Node* node, Py_ssize_t index) noexcept:
    fault.path[fault.depth].node = node
    fault.path[fault.depth].index = index
    fault.depth += 1


cdef int _pending() except -1:
    return -1  # raises what is set


cdef str _why(Fault* fault):
    cdef int kind = fault.kind
    if kind == WRONG_TYPE:
        return f"a {type(<object>fault.value).__name__} where {(<object>fault.node.layout).name} is wanted"
    if kind == RANGE:
        return f"{<object>fault.value:#x} is outside 0..{TOPS[fault.node.wire]:#x}"
    if kind == TOO_LARGE:
        return "the number is too large"
    if kind == NOT_FINITE:
        return "the number is not finite"
    if kind == NOT_16:
        return f"{fault.a} bytes, not 16"
    if kind == NOT_UTF8:
        return "the text has characters that UTF-8 has not"
    if kind == BAD_UTF8:
        return "the text is not UTF-8"
    if kind == BAD_TABLE:
        return str(<object>fault.error)
    if kind == FIELDS:
        return f"{fault.a} fields, not {fault.b}"
    if kind == LENGTH:
        return f"a length of {fault.a} does not fit in 32 bits"
    if kind == SHORT:
        return f"{fault.a} bytes wanted, {fault.b} left"
    if kind == COUNT:
        return f"{fault.a} items announced, {fault.b} bytes left"
    if kind == FLAG:
        return f"{fault.a} where 0 or 1 is wanted"
    if kind == NOT_MEMBER:
        return f"{fault.a} is no {(<object>fault.node.layout).name}"
    return f"{fault.a} bytes after the end"


cdef int _raise(Fault* fault, str name, object kind) except -1:
    """Raise *fault* as a *kind*."""
    cdef Step step
    cdef object error = None
    cdef list text = [name]
    if fault.error != NULL:
        error = <object>fault.error
        unref(fault.error)
    if fault.kind == PYTHON:
        if error is not None:
            raise error
        _pending()
    for i in reversed(range(fault.depth)):
        step = fault.path[i]
        if step.node.wire == TUPLE:
            text.append(f"[{step.index}]")
        else:
            text.append(f".{(<object>step.node.layout).fields[step.index].name}")
    text.append(": ")
    if fault.kind == BAD_TABLE:
        text.append(str(error))
    else:
        text.append(_why(fault))
    raise kind("".join(text)) from error


# ------------------------------------------------------------------------------------------------ encoding

cdef struct Output:
    uint8_t* to
    Py_ssize_t used
    Py_ssize_t size
    PyObject* held  # bytes, NULL as long as `small` is enough
    Fault fault
    uint8_t[SMALL] small


cdef inline void _open(Output* out) noexcept:
    out.to = out.small
    out.used = 0
    out.size = SMALL
    out.held = NULL
    out.fault.kind = NONE
    out.fault.depth = 0
    out.fault.error = NULL


cdef int _grow(Output* out, Py_ssize_t room) noexcept:
    cdef Py_ssize_t size = max(2 * out.size, out.used + room + 128)
    if out.held == NULL:
        out.held = PyBytes_FromStringAndSize(NULL, size)
        if out.held == NULL:
            return _fail(&out.fault, PYTHON, 0, 0)
        memcpy(PyBytes_AS_STRING(out.held), out.small, out.used)
    elif _PyBytes_Resize(&out.held, size) < 0:  # and `held` is NULL
        return _fail(&out.fault, PYTHON, 0, 0)
    out.to = <uint8_t*>PyBytes_AS_STRING(out.held)
    out.size = size
    return 0


cdef inline uint8_t* _room(Output* out, Py_ssize_t room) noexcept:
    """Return where *room* bytes can be written, NULL without memory."""
    cdef uint8_t* to
    if out.size - out.used < room and _grow(out, room) < 0:
        return NULL
    to = out.to + out.used
    out.used += room
    return to


cdef bytes _close(Output* out):
    """Return what was written."""
    cdef PyObject* made
    if out.held == NULL:
        made = PyBytes_FromStringAndSize(<const char*>out.small, out.used)
        if made == NULL:
            _pending()
        out.held = made
    elif _PyBytes_Resize(&out.held, out.used) < 0:
        _pending()
    result = <bytes>out.held
    unref(out.held)
    out.held = NULL
    return result


cdef inline int _write_bytes(Output* out, const char* data, Py_ssize_t size) noexcept:
    cdef uint8_t* to
    if <uint64_t>size > U32_MAX:
        return _fail(&out.fault, LENGTH, size, 0)
    to = _room(out, 4 + size)
    if to == NULL:
        return -1
    put32(to, <uint32_t>size)
    memcpy(to + 4, data, size)
    return 0


cdef int _write_table(PyObject* value, Output* out) noexcept:
    try:
        packed = encode_update(<object>value)
    except LocalProtocolError as error:
        out.fault.error = new_ref(<PyObject*>error)
        return _fail(&out.fault, BAD_TABLE, 0, 0)
    except BaseException as error:
        out.fault.error = new_ref(<PyObject*>error)
        return _fail(&out.fault, PYTHON, 0, 0)
    return _write_bytes(out, PyBytes_AS_STRING(<PyObject*>packed), PyBytes_GET_SIZE(<PyObject*>packed))


cdef int _write_text(Node* node, PyObject* value, Output* out) noexcept:
    cdef Py_ssize_t size
    cdef const char* text = PyUnicode_AsUTF8AndSize(value, &size)
    if text == NULL:
        if not PyErr_ExceptionMatches(<PyObject*>UnicodeEncodeError):
            return _fail(&out.fault, PYTHON, 0, 0)
        PyErr_Clear()
        return _fail(&out.fault, NOT_UTF8, 0, 0)
    return _write_bytes(out, text, size)


cdef int _write_double(Node* node, PyObject* value, Output* out) noexcept:
    cdef double number
    cdef uint64_t bits
    cdef uint8_t* to
    if PyFloat_Check(value):
        number = PyFloat_AsDouble(value)
    elif is_int(value):
        number = PyLong_AsDouble(value)
        if number == -1.0 and PyErr_Occurred() != NULL:
            PyErr_Clear()
            return _fail(&out.fault, TOO_LARGE, 0, 0)
    else:
        return _misfit(&out.fault, WRONG_TYPE, node, value)
    if not isfinite(number):
        return _fail(&out.fault, NOT_FINITE, 0, 0)
    to = _room(out, 8)
    if to == NULL:
        return -1
    memcpy(&bits, &number, 8)
    put64(to, bits)
    return 0


cdef int _write_fields(Node* node, PyObject* value, Output* out) noexcept:
    cdef Py_ssize_t i
    if PyTuple_GET_SIZE(value) != node.count:
        return _fail(&out.fault, FIELDS, PyTuple_GET_SIZE(value), node.count)
    for i in range(node.count):
        if _write(node.fields[i], PyTuple_GET_ITEM(value, i), out) < 0:
            _within(&out.fault, node, i)
            return -1
    return 0


cdef int _write_tuple(Node* node, PyObject* value, Output* out) noexcept:
    cdef Py_ssize_t i
    cdef Py_ssize_t count = PyTuple_GET_SIZE(value)
    cdef uint8_t* to
    if <uint64_t>count > U32_MAX:
        return _fail(&out.fault, LENGTH, count, 0)
    to = _room(out, 4)
    if to == NULL:
        return -1
    put32(to, <uint32_t>count)
    for i in range(count):
        if _write(node.item, PyTuple_GET_ITEM(value, i), out) < 0:
            _within(&out.fault, node, i)
            return -1
    return 0


cdef int _write(Node* node, PyObject* value, Output* out) noexcept:
    """Append *value*. Return -1 with a fault when it does not fit."""
    cdef int wire = node.wire
    cdef uint64_t number
    cdef uint8_t* to
    if wire <= U64:
        if not is_int(value):
            return _misfit(&out.fault, WRONG_TYPE, node, value)
        number = PyLong_AsUnsignedLongLong(value)
        if number == <uint64_t>-1 and PyErr_Occurred() != NULL:
            PyErr_Clear()
            return _misfit(&out.fault, RANGE, node, value)
        if number > TOPS[wire]:
            return _misfit(&out.fault, RANGE, node, value)
        to = _room(out, 1 << wire)
        if to == NULL:
            return -1
        if wire == U64:
            put64(to, number)
        elif wire == U32:
            put32(to, <uint32_t>number)
        elif wire == U16:
            put16(to, <uint16_t>number)
        else:
            to[0] = <uint8_t>number
        return 0
    if wire == STRUCT:
        if not is_instance(value, node.cls):
            return _misfit(&out.fault, WRONG_TYPE, node, value)
        return _write_fields(node, value, out)
    if wire == TUPLE:
        if not PyTuple_Check(value):
            return _misfit(&out.fault, WRONG_TYPE, node, value)
        return _write_tuple(node, value, out)
    if wire == BYTES:
        if not PyBytes_Check(value):
            return _misfit(&out.fault, WRONG_TYPE, node, value)
        return _write_bytes(out, PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))
    if wire == BYTES16:
        if not PyBytes_Check(value):
            return _misfit(&out.fault, WRONG_TYPE, node, value)
        if PyBytes_GET_SIZE(value) != 16:
            return _fail(&out.fault, NOT_16, PyBytes_GET_SIZE(value), 0)
        to = _room(out, 16)
        if to == NULL:
            return -1
        memcpy(to, PyBytes_AS_STRING(value), 16)
        return 0
    if wire == ENUM:
        if not is_instance(value, node.cls):
            return _misfit(&out.fault, WRONG_TYPE, node, value)
        to = _room(out, 1)
        if to == NULL:
            return -1
        to[0] = <uint8_t>PyLong_AsLong(value)
        return 0
    if wire == BOOL:
        if not PyBool_Check(value):
            return _misfit(&out.fault, WRONG_TYPE, node, value)
        to = _room(out, 1)
        if to == NULL:
            return -1
        to[0] = value == Py_True
        return 0
    if wire == OPTIONAL:
        to = _room(out, 1)
        if to == NULL:
            return -1
        to[0] = value != Py_None
        return 0 if value == Py_None else _write(node.item, value, out)
    if wire == TEXT:
        if not PyUnicode_Check(value):
            return _misfit(&out.fault, WRONG_TYPE, node, value)
        return _write_text(node, value, out)
    if wire == DOUBLE:
        return _write_double(node, value, out)
    # TABLE
    if not is_instance(value, node.cls):
        return _misfit(&out.fault, WRONG_TYPE, node, value)
    return _write_table(value, out)


def encode(value, /):
    """Return *value*, an instance of a NamedTuple class with schema annotations, as bytes."""
    cdef Plan plan
    cdef Output out
    cls = type(value)
    plan = <Plan>_plans.get(cls)
    if plan is None:
        if not is_struct(cls):
            raise LocalProtocolError(f"{cls.__name__} is not a NamedTuple: it cannot be encoded")
        plan = _plan(cls)
    _open(&out)
    if _write_fields(plan.node, <PyObject*>value, &out) < 0:
        unref(out.held)
        _raise(&out.fault, plan.name, LocalProtocolError)
    return _close(&out)


cdef str _wrong_request(str name, object request):
    if request:
        return f"{name}: a notification with request id {request}"
    return f"{name}: a question or answer without request id"


def frame(packet, request=0, /):
    """Return the frame of *packet*: header and payload."""
    cdef Plan plan = <Plan>_plans.get(type(packet))
    cdef Output out
    cdef uint64_t number
    cdef uint64_t size
    if plan is None or plan.code < 0:
        raise LocalProtocolError(f"{type(packet).__name__} is not a packet")
    number = PyLong_AsUnsignedLongLong(<PyObject*>request)
    if number > U32_MAX:
        if PyErr_Occurred() != NULL:
            if not PyErr_ExceptionMatches(<PyObject*>OverflowError):
                _pending()
            PyErr_Clear()
        raise LocalProtocolError(f"{plan.name}: request id {request:#x} is outside 0..{U32_MAX:#x}")
    if plan.is_notification != (number == 0):
        raise LocalProtocolError(_wrong_request(plan.name, request))
    _open(&out)
    out.used = HEADER
    if _write_fields(plan.node, <PyObject*>packet, &out) < 0:
        unref(out.held)
        _raise(&out.fault, plan.name, LocalProtocolError)
    size = out.used - HEADER
    if size > FRAME_MAX:
        unref(out.held)
        raise LocalProtocolError(f"{plan.name}: {size} bytes, more than a frame of {FRAME_MAX} can carry")
    put32(out.to, <uint32_t>size)
    put16(out.to + 4, <uint16_t>plan.code)
    put32(out.to + 6, <uint32_t>number)
    return _close(&out)


# ------------------------------------------------------------------------------------------------ decoding

cdef struct Input:
    const uint8_t* at
    const uint8_t* end
    Fault fault


cdef inline const uint8_t* _take(Input* source, uint64_t size) noexcept:
    """Return the next *size* bytes and step over them; NULL with a fault when they are not there."""
    cdef const uint8_t* at = source.at
    if size > <uint64_t>(source.end - at):
        _fail(&source.fault, SHORT, size, source.end - at)
        return NULL
    source.at = at + size
    return at


cdef inline PyObject* _made(Input* source, PyObject* value) noexcept:
    if value == NULL:
        source.fault.kind = PYTHON
    return value


cdef PyObject* _read_text(const char* at, Py_ssize_t size, Input* source) noexcept:
    cdef PyObject* value = PyUnicode_DecodeUTF8(at, size, "strict")
    if value == NULL:
        if PyErr_ExceptionMatches(<PyObject*>UnicodeDecodeError):
            PyErr_Clear()
            _fail(&source.fault, BAD_UTF8, 0, 0)
        else:
            source.fault.kind = PYTHON
    return value


cdef PyObject* _read_table(const char* at, Py_ssize_t size, Input* source) noexcept:
    try:
        update = decode_update(at[:size])
        return new_ref(<PyObject*>update)
    except RemoteProtocolError as error:
        source.fault.error = new_ref(<PyObject*>error)
        _fail(&source.fault, BAD_TABLE, 0, 0)
    except BaseException as error:
        source.fault.error = new_ref(<PyObject*>error)
        source.fault.kind = PYTHON
    return NULL


cdef PyObject* _read_fields(Node* node, Input* source) noexcept:
    cdef Py_ssize_t i
    cdef PyObject* item
    cdef PyObject* value = _made(source, alloc_struct(node.cls, node.count))
    if value == NULL:
        return NULL
    for i in range(node.count):
        item = _read(node.fields[i], source)
        if item == NULL:
            _within(&source.fault, node, i)
            unref(value)
            return NULL
        PyTuple_SET_ITEM(value, i, item)
    return value


cdef PyObject* _read_tuple(Node* node, Input* source) noexcept:
    cdef const uint8_t* at = _take(source, 4)
    cdef Py_ssize_t i, count
    cdef PyObject* item
    cdef PyObject* value
    if at == NULL:
        return NULL
    count = get32(at)
    if count * node.item.min_size > source.end - source.at:
        _fail(&source.fault, COUNT, count, source.end - source.at)
        return NULL
    value = _made(source, PyTuple_New(count))
    if value == NULL:
        return NULL
    for i in range(count):
        item = _read(node.item, source)
        if item == NULL:
            _within(&source.fault, node, i)
            unref(value)
            return NULL
        PyTuple_SET_ITEM(value, i, item)
    return value


cdef PyObject* _read(Node* node, Input* source) noexcept:
    """Return the next value, a new reference; NULL with a fault when it is not legal."""
    cdef int wire = node.wire
    cdef const uint8_t* at
    cdef uint32_t size
    cdef uint64_t bits
    cdef double number
    if wire == STRUCT:
        return _read_fields(node, source)
    if wire == TUPLE:
        return _read_tuple(node, source)
    at = _take(source, node.min_size)  # all of it, or its length, or its flag
    if at == NULL:
        return NULL
    if wire == U64:
        return _made(source, PyLong_FromUnsignedLongLong(get64(at)))
    if wire == U32:
        return _made(source, PyLong_FromUnsignedLong(get32(at)))
    if wire == BYTES:
        size = get32(at)
        at = _take(source, size)
        return NULL if at == NULL else _made(source, PyBytes_FromStringAndSize(<const char*>at, size))
    if wire == BYTES16:
        return _made(source, PyBytes_FromStringAndSize(<const char*>at, 16))
    if wire == ENUM:
        if node.members[at[0]] == NULL:
            source.fault.node = node
            _fail(&source.fault, NOT_MEMBER, at[0], 0)
            return NULL
        return new_ref(node.members[at[0]])
    if wire == BOOL or wire == OPTIONAL:
        if at[0] > 1:
            _fail(&source.fault, FLAG, at[0], 0)
            return NULL
        if wire == BOOL:
            return new_ref(Py_True if at[0] else Py_False)
        return _read(node.item, source) if at[0] else new_ref(Py_None)
    if wire == TEXT:
        size = get32(at)
        at = _take(source, size)
        return NULL if at == NULL else _read_text(<const char*>at, size, source)
    if wire == U16:
        return _made(source, PyLong_FromUnsignedLong(get16(at)))
    if wire == U8:
        return _made(source, PyLong_FromUnsignedLong(at[0]))
    if wire == DOUBLE:
        bits = get64(at)
        memcpy(&number, &bits, 8)
        if not isfinite(number):
            _fail(&source.fault, NOT_FINITE, 0, 0)
            return NULL
        return _made(source, PyFloat_FromDouble(number))
    # TABLE
    size = get32(at)
    at = _take(source, size)
    return NULL if at == NULL else _read_table(<const char*>at, size, source)


cdef object _decode(Plan plan, const uint8_t* data, Py_ssize_t size):
    cdef Input source
    cdef PyObject* value
    source.at = data
    source.end = data + size
    source.fault.kind = NONE
    source.fault.depth = 0
    source.fault.error = NULL
    value = _read_fields(plan.node, &source)
    if value != NULL and source.at != source.end:
        unref(value)
        value = NULL
        _fail(&source.fault, TRAILING, source.end - source.at, 0)
    if value == NULL:
        _raise(&source.fault, plan.name, RemoteProtocolError)
    result = <object>value
    unref(value)
    return result


def decode(cls, data, /):
    """Return the instance of the NamedTuple class *cls* that *data*, all of it, encodes."""
    cdef Plan plan = <Plan>_plans.get(cls)
    cdef Py_buffer view
    if plan is None:
        if not is_struct(cls):
            raise LocalProtocolError(f"{getattr(cls, '__name__', cls)} is not a NamedTuple: it cannot be decoded")
        plan = _plan(cls)
    if PyBytes_Check(<PyObject*>data):
        return _decode(plan, <const uint8_t*>PyBytes_AS_STRING(<PyObject*>data), PyBytes_GET_SIZE(<PyObject*>data))
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        return _decode(plan, <const uint8_t*>view.buf, view.len)
    finally:
        PyBuffer_Release(&view)


cdef class FrameReader:
    """Cuts a stream of bytes into frames and decodes each.

    Frames that came whole are decoded where they lie; only the rest of a feed is copied, into a buffer that doubles.
    """

    cdef uint8_t* _buffer
    cdef Py_ssize_t _used
    cdef Py_ssize_t _size
    cdef Py_ssize_t _wanted  # bytes of header, or of the frame once its header is complete
    cdef object _error

    def __cinit__(self):
        self._wanted = HEADER

    def __dealloc__(self):
        free(self._buffer)

    @property
    def buffered(self):
        """How many bytes wait for the rest of their frame."""
        return self._used

    def feed(self, data, /):
        """Return the (request id, packet) that *data* completes, in order."""
        cdef Py_buffer view
        if self._error is not None:
            raise RemoteProtocolError(self._error)
        if PyBytes_Check(<PyObject*>data):
            return self._feed(<const uint8_t*>PyBytes_AS_STRING(<PyObject*>data), PyBytes_GET_SIZE(<PyObject*>data))
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            return self._feed(<const uint8_t*>view.buf, view.len)
        finally:
            PyBuffer_Release(&view)

    cdef list _feed(self, const uint8_t* data, Py_ssize_t left):
        cdef list frames = []
        cdef Py_ssize_t step
        try:
            while left:
                if not self._used:
                    step = HEADER if left < HEADER else self._judge(data)
                    if left >= HEADER and left >= step:
                        frames.append(self._frame(data, step))
                        data += step
                        left -= step
                        continue
                    self._wanted = step
                step = min(self._wanted - self._used, left)
                self._keep(data, step)
                data += step
                left -= step
                if self._used < self._wanted:
                    break
                if self._wanted == HEADER:
                    self._wanted = self._judge(self._buffer)
                    if self._wanted > HEADER:
                        continue
                frames.append(self._frame(self._buffer, self._wanted))
                self._reset()
        except RemoteProtocolError as error:
            self._error = str(error)
            self._reset()
            raise
        return frames

    cdef Py_ssize_t _judge(self, const uint8_t* header) except -1:
        """Return the size of the frame, its header included."""
        cdef uint64_t size = get32(header)
        cdef int code = get16(header + 4)
        cdef uint32_t request = get32(header + 6)
        cdef Plan plan
        if _packets[code] == NULL:
            raise RemoteProtocolError(f"unknown packet code {code:#06x}")
        plan = <Plan>_packets[code]
        if plan.is_notification != (request == 0):
            raise RemoteProtocolError(_wrong_request(plan.name, request))
        if size > FRAME_MAX:
            raise RemoteProtocolError(f"{plan.name}: a frame of {size} bytes, more than {FRAME_MAX}")
        return HEADER + size

    cdef tuple _frame(self, const uint8_t* data, Py_ssize_t size):
        cdef Plan plan = <Plan>_packets[get16(data + 4)]
        return (get32(data + 6), _decode(plan, data + HEADER, size - HEADER))

    cdef int _keep(self, const uint8_t* data, Py_ssize_t size) except -1:
        cdef uint8_t* buffer
        cdef Py_ssize_t room
        if self._used + size > self._size:
            room = max(2 * self._size, self._used + size, 256)
            buffer = <uint8_t*>realloc(self._buffer, room)
            if buffer == NULL:
                raise MemoryError()
            self._buffer = buffer
            self._size = room
        memcpy(self._buffer + self._used, data, size)
        self._used += size
        return 0

    cdef void _reset(self) noexcept:
        self._used = 0
        self._wanted = HEADER
        if self._size > KEPT:
            free(self._buffer)
            self._buffer = NULL
            self._size = 0

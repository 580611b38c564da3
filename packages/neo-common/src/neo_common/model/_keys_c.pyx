# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
"""The packing of partition tables, fast: the same functions, results and errors as `_keys_py`, which explains them."""

from cpython.object cimport PyObject, PyTypeObject
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, qsort, realloc
from libc.string cimport memcpy

from neo_common.errors import LocalProtocolError, RemoteProtocolError
from neo_common.ids import Version
from neo_common.model.orders import NO_ORDERS, from_numbers, to_numbers
from neo_common.model.partition_table import Cell, TableUpdate
from neo_common.states import CellState

cdef extern from *:
    """
    #ifndef NEO_SOURCE
    #define NEO_SOURCE ""
    #endif
    #define neo_is(o, cls) PyObject_TypeCheck(o, (PyTypeObject *)(cls))
    #define neo_is_int(o) (PyLong_Check(o) && !PyBool_Check(o))
    static int neo_order(const void *a, const void *b) {
        uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
        return (x > y) - (x < y);
    }
    """
    const char* NEO_SOURCE
    bint is_instance "neo_is"(object value, object cls) noexcept
    bint is_int "neo_is_int"(object value) noexcept
    int order "neo_order"(const void*, const void*) noexcept nogil

cdef extern from "Python.h":
    unsigned long long PyLong_AsUnsignedLongLong(object) noexcept
    long PyLong_AsLong(object) noexcept
    PyObject* PyErr_Occurred() noexcept
    void PyErr_Clear() noexcept
    object PyTuple_New(Py_ssize_t)
    void PyTuple_SET_ITEM(object, Py_ssize_t, PyObject*) noexcept
    void Py_INCREF(PyObject*) noexcept
    bytes PyBytes_FromStringAndSize(const char*, Py_ssize_t)

SOURCE = NEO_SOURCE.decode()
"""SHA-256 of the .pyx that this was built from."""

cdef enum:  # as in _keys_py; a test compares
    _PARTITIONS_MAX = 131072
    _CELLS_MAX = 1048576
    _RUN_GAIN = 5

PARTITIONS_MAX = _PARTITIONS_MAX
CELLS_MAX = _CELLS_MAX
RUN_GAIN = _RUN_GAIN

cdef uint64_t U32_MAX = 0xFFFFFFFF
cdef uint64_t U64_MAX = 0xFFFFFFFFFFFFFFFF
cdef tuple _states = tuple(CellState)
cdef int _state_count = len(_states)
assert [int(state) for state in _states] == list(range(_state_count))

# ------------------------------------------------------------------------------------------------ encoding


cdef class _Output:
    """Bytes that grow."""

    cdef uint8_t* data
    cdef Py_ssize_t used
    cdef Py_ssize_t size

    def __dealloc__(self):
        free(self.data)

    cdef int put(self, uint64_t number) except -1:
        cdef uint8_t* data
        if self.size - self.used < 10:
            data = <uint8_t*>realloc(self.data, 2 * self.size + 256)
            if data == NULL:
                raise MemoryError()
            self.data = data
            self.size = 2 * self.size + 256
        while number >= 0x80:
            self.data[self.used] = <uint8_t>(number & 0x7F | 0x80)
            self.used += 1
            number >>= 7
        self.data[self.used] = <uint8_t>number
        self.used += 1
        return 0


cdef class _Rows:
    """The rows of an update as arrays: a row is `cells[starts[i]:starts[i + 1]]`, each cell first a node, then a key."""

    cdef Py_ssize_t count
    cdef uint32_t* partitions
    cdef uint32_t* starts
    cdef uint32_t* cells
    cdef uint8_t* states
    cdef Py_ssize_t size  # of cells and states
    cdef uint32_t* slots  # a hash table of nodes: pairs (node, 1 + key)
    cdef uint32_t slots_size  # a power of 2
    cdef uint32_t* nodes
    cdef uint32_t node_count

    def __dealloc__(self):
        free(self.partitions)
        free(self.starts)
        free(self.cells)
        free(self.states)
        free(self.slots)
        free(self.nodes)

    cdef int room(self, Py_ssize_t size) except -1:
        cdef uint32_t* cells
        cdef uint8_t* states
        if size <= self.size:
            return 0
        size = max(size, 2 * self.size)
        cells = <uint32_t*>realloc(self.cells, size * sizeof(uint32_t))
        if cells == NULL:
            raise MemoryError()
        self.cells = cells
        states = <uint8_t*>realloc(self.states, size)
        if states == NULL:
            raise MemoryError()
        self.states = states
        self.size = size
        return 0

    cdef inline uint32_t* slot(self, uint32_t node) noexcept:
        """Return the slot of *node*, or the empty one where it belongs."""
        cdef uint32_t mask = self.slots_size - 1
        cdef uint32_t i = (node * <uint32_t>2654435761) >> 7 & mask
        while self.slots[2 * i + 1] and self.slots[2 * i] != node:
            i = i + 1 & mask
        return self.slots + 2 * i

    cdef int note(self, uint32_t node) except -1:
        """Put *node* into the hash table."""
        cdef uint32_t* slot
        cdef uint32_t* nodes
        cdef uint32_t* old = self.slots
        cdef uint32_t i
        if 2 * self.node_count >= self.slots_size:
            i = max(2 * self.slots_size, <uint32_t>256)
            nodes = <uint32_t*>realloc(self.nodes, i * sizeof(uint32_t))
            if nodes == NULL:
                raise MemoryError()
            self.nodes = nodes
            self.slots = <uint32_t*>calloc(2 * i, sizeof(uint32_t))
            if self.slots == NULL:
                self.slots = old
                raise MemoryError()
            free(old)
            self.slots_size = i
            for i in range(self.node_count):
                slot = self.slot(self.nodes[i])
                slot[0] = self.nodes[i]
                slot[1] = 1
        slot = self.slot(node)
        if not slot[1]:
            slot[0] = node
            slot[1] = 1
            self.nodes[self.node_count] = node
            self.node_count += 1
        return 0

    cdef void number(self) noexcept:
        """Replace nodes by keys, in ascending order of nodes."""
        cdef uint32_t i
        cdef uint32_t* slot
        if self.node_count:
            qsort(self.nodes, self.node_count, sizeof(uint32_t), order)
        for i in range(self.node_count):
            self.slot(self.nodes[i])[1] = 1 + i
        for i in range(self.starts[self.count]):
            self.cells[i] = self.slot(self.cells[i])[1] - 1

    cdef Py_ssize_t run(self, Py_ssize_t start, uint32_t* shift) noexcept:
        """Return how many rows from *start* on make a run, and its shift."""
        cdef uint32_t first = self.starts[start]
        cdef uint32_t width = self.starts[start + 1] - first
        cdef uint32_t keys = self.node_count
        cdef uint32_t i, other, before
        cdef Py_ssize_t length = 1
        shift[0] = 0
        if start + 1 == self.count or not width or self.starts[start + 1] == self.starts[start + 2]:
            return 1
        shift[0] = (self.cells[self.starts[start + 1]] + keys - self.cells[first]) % keys
        while start + length < self.count:
            other = self.starts[start + length]
            if self.starts[start + length + 1] - other != width:
                break
            if self.partitions[start + length] != self.partitions[start] + length:
                break
            before = other - width
            for i in range(width):
                if self.cells[other + i] != (self.cells[before + i] + shift[0]) % keys:
                    return length
                if self.states[other + i] != self.states[before + i]:
                    return length
            length += 1
        return length

    cdef Py_ssize_t literal_end(self, Py_ssize_t start) noexcept:
        """Return where the literal rows from *start* on end: at a gap, another number of cells, or a run that pays."""
        cdef uint32_t width = self.starts[start + 1] - self.starts[start]
        cdef Py_ssize_t stop = start + 1
        cdef uint32_t shift
        while stop < self.count:
            if self.partitions[stop] != self.partitions[start] + stop - start:
                break
            if self.starts[stop + 1] - self.starts[stop] != width:
                break
            if (self.run(stop, &shift) - 1) * width > _RUN_GAIN:
                break
            stop += 1
        return stop


def encode_update(update, /):
    """Return *update* as bytes."""
    cdef _Output out = _Output.__new__(_Output)
    cdef _Rows table
    cdef uint32_t i
    cdef uint32_t shift
    cdef uint32_t following = 0
    cdef uint32_t start, stop
    cdef Py_ssize_t length
    base, version, replicas, partitions, rows, orders = update
    if base is not None:
        _check_type("base", base, Version)
    _check_type("version", version, Version)
    _check_type("rows", rows, tuple)
    numbers = [] if orders == NO_ORDERS else to_numbers(orders)
    out.put((base is not None) + 2 * bool(numbers))
    if base is not None:
        out.put(_checked("base epoch", base.epoch, U64_MAX))
        out.put(_checked("base ptid", base.ptid, U64_MAX))
    out.put(_checked("epoch", version.epoch, U64_MAX))
    out.put(_checked("ptid", version.ptid, U64_MAX))
    out.put(_checked("replicas", replicas, U32_MAX))
    out.put(_checked("partitions", partitions, _PARTITIONS_MAX))
    for number in numbers:
        out.put(number)
    table = _take_rows(base is None, partitions, rows)
    table.number()
    out.put(table.node_count)
    for i in range(table.node_count):
        out.put(table.nodes[i] - table.nodes[i - 1] - 1 if i else table.nodes[0])
    start = 0
    while start < table.count:
        length = table.run(start, &shift)
        first, stop = table.starts[start], table.starts[start + 1]
        is_run = (length - 1) * (stop - first) > _RUN_GAIN
        if not is_run:
            length = table.literal_end(start) - start
            stop = table.starts[start + length]
        if base is not None:
            out.put(table.partitions[start] - following)
        following = table.partitions[start] + <uint32_t>length
        out.put(<uint64_t>length << 1 | <uint64_t>is_run)
        out.put(table.starts[start + 1] - first)
        for i in range(first, stop):
            out.put(<uint64_t>table.cells[i] << 3 | table.states[i])
        if is_run:
            out.put(shift)
        start += length
    return PyBytes_FromStringAndSize(<char*>out.data, out.used)


cdef int _check_type(str name, object value, object wanted) except -1:
    if not is_instance(value, wanted):
        raise LocalProtocolError(f"{name}: a {type(value).__name__} where {wanted.__name__} is wanted")
    return 0


cdef uint64_t _checked(name, number, uint64_t top) except? 0xFFFFFFFFFFFFFFFF:
    cdef uint64_t value
    if not is_int(number):
        raise LocalProtocolError(f"{name}: a {type(number).__name__} where a number is wanted")
    value = PyLong_AsUnsignedLongLong(number)
    if (value == U64_MAX and PyErr_Occurred() != NULL) or value > top:
        PyErr_Clear()
        raise LocalProtocolError(f"{name}: {number:#x} is outside 0..{top:#x}")
    return value


cdef _Rows _take_rows(bint is_whole, object partitions, tuple rows):
    cdef _Rows table = _Rows.__new__(_Rows)
    cdef uint64_t partition_count = partitions
    cdef uint64_t number
    cdef uint64_t following = 0
    cdef uint32_t node
    cdef uint32_t used = 0
    cdef uint32_t first, i
    if is_whole and <uint64_t>len(rows) != partition_count:
        raise LocalProtocolError(f"{len(rows)} rows of {partition_count} in a whole table")
    table.partitions = <uint32_t*>malloc((len(rows) + 1) * sizeof(uint32_t))
    table.starts = <uint32_t*>malloc((len(rows) + 1) * sizeof(uint32_t))
    if table.partitions == NULL or table.starts == NULL:
        raise MemoryError()
    for entry in rows:
        if not isinstance(entry, tuple) or len(<tuple>entry) != 2:
            raise LocalProtocolError(f"rows: a {type(entry).__name__} where a partition and its row are wanted")
        partition, row = <tuple>entry
        number = _checked("partition", partition, U32_MAX)
        if number >= partition_count:
            raise LocalProtocolError(f"partition {number} of {partition_count}")
        if number < following or (is_whole and number != following):
            raise LocalProtocolError(f"partition {number} where {following} is next")
        following = number + 1
        if not isinstance(row, tuple):
            _check_type(f"partition {number}", row, tuple)
        if used + <uint64_t>len(<tuple>row) > <uint64_t>_CELLS_MAX:
            raise LocalProtocolError(f"more than {_CELLS_MAX} cells")
        table.partitions[table.count] = <uint32_t>number
        table.starts[table.count] = used
        table.count += 1
        table.room(used + len(<tuple>row))
        first = used
        for cell in <tuple>row:
            if not isinstance(cell, tuple) or len(<tuple>cell) != 2:
                raise LocalProtocolError(f"partition {number}: a {type(cell).__name__} where Cell is wanted")
            id_, state = <tuple>cell
            if not is_int(id_) or PyLong_AsUnsignedLongLong(id_) > U32_MAX:
                PyErr_Clear()
                _checked(f"partition {number}: node", id_, U32_MAX)
            node = <uint32_t>PyLong_AsUnsignedLongLong(id_)
            if not is_instance(state, CellState):
                _check_type(f"partition {number}", state, CellState)
            for i in range(first, used):
                if table.cells[i] == node:
                    raise LocalProtocolError(f"partition {number}: node {node:#x} twice")
            table.note(node)
            table.cells[used] = node
            table.states[used] = <uint8_t>PyLong_AsLong(state)
            used += 1
    table.starts[table.count] = used
    return table


# ------------------------------------------------------------------------------------------------ decoding


cdef struct Source:
    const uint8_t* at
    const uint8_t* end


cdef int _get(Source* source, str name, uint64_t top, uint64_t* number) except -1:
    """Read the next number, at most *top*."""
    cdef int shift = 0
    cdef uint8_t byte
    if source.at != source.end and source.at[0] < 0x80 and source.at[0] <= top:
        number[0] = source.at[0]  # most of them
        source.at += 1
        return 0
    number[0] = 0
    while True:
        if source.at == source.end:
            raise RemoteProtocolError(f"{name}: the bytes end within a number")
        byte = source.at[0]
        source.at += 1
        if shift == 63 and byte > 1:
            raise RemoteProtocolError(f"{name}: a number of more than 64 bits")
        number[0] |= <uint64_t>(byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    if shift > 7 and byte == 0:
        raise RemoteProtocolError(f"{name}: a number that is longer than it must be")
    if number[0] > top:
        raise RemoteProtocolError(f"{name}: {number[0]:#x} is outside 0..{top:#x}")
    return 0


cdef class _Cells:
    """The cells that an update may have, by key and state; made when they are first seen."""

    cdef list nodes
    cdef list cells
    cdef uint64_t keys
    cdef uint32_t* seen  # by key: the mark of the last row that had it
    cdef uint32_t mark

    def __dealloc__(self):
        free(self.seen)

    cdef int read_row(self, Source* source, uint64_t partition, Py_ssize_t width, uint32_t* row) except -1:
        """Read *width* cells into *row*."""
        cdef uint64_t cell
        cdef Py_ssize_t i
        self.mark += 1
        for i in range(width):
            _get(source, "cell", U32_MAX, &cell)
            if cell >> 3 >= self.keys:
                raise RemoteProtocolError(f"partition {partition}: key {cell >> 3} of {self.keys}")
            if <int>(cell & 7) >= _state_count:
                raise RemoteProtocolError(f"partition {partition}: {cell & 7} is no CellState")
            if self.seen[cell >> 3] == self.mark:
                raise RemoteProtocolError(f"partition {partition}: key {cell >> 3} twice")
            self.seen[cell >> 3] = self.mark
            row[i] = <uint32_t>cell
        return 0

    cdef tuple make_row(self, Py_ssize_t width, uint32_t* row):
        cdef tuple made = PyTuple_New(width)
        cdef Py_ssize_t i, index
        cdef object cell
        for i in range(width):
            index = (row[i] >> 3) * _state_count + (row[i] & 7)
            cell = self.cells[index]
            if cell is None:
                cell = Cell(self.nodes[row[i] >> 3], _states[row[i] & 7])
                self.cells[index] = cell
            Py_INCREF(<PyObject*>cell)
            PyTuple_SET_ITEM(made, i, <PyObject*>cell)
        return made


cdef _Cells _get_nodes(Source* source):
    cdef _Cells cells = _Cells.__new__(_Cells)
    cdef uint64_t count, step
    cdef uint64_t last = 0
    cdef uint64_t i
    cdef Py_ssize_t cell_count
    _get(source, "nodes", U32_MAX, &count)
    if count > <uint64_t>(source.end - source.at):
        raise RemoteProtocolError(f"{count} nodes announced, {source.end - source.at} bytes left")
    cells.nodes = []
    for i in range(count):
        _get(source, "node", U32_MAX, &step)
        last = last + 1 + step if i else step
        if last > U32_MAX:
            raise RemoteProtocolError(f"node: {last:#x} is outside 0..{U32_MAX:#x}")
        cells.nodes.append(last)
    cells.keys = count
    cell_count = count * _state_count
    cells.cells = [None] * cell_count
    cells.seen = <uint32_t*>calloc(count + 1, sizeof(uint32_t))
    if cells.seen == NULL:
        raise MemoryError()
    return cells


cdef class _Numbers:
    """Reads single numbers, for what is rare."""

    cdef Source* source

    def get(self, str name, uint64_t top):
        cdef uint64_t number
        _get(self.source, name, top, &number)
        return number


def decode_update(bytes data not None, /):
    """Return the update that *data*, all of it, encodes."""
    cdef Source source
    cdef uint64_t kind, number, partitions, replicas, length, width, shift, keys, i, step
    cdef uint64_t following = 0
    cdef uint64_t total = 0
    cdef uint64_t zero = 0
    cdef uint32_t* row = NULL
    cdef _Cells cells
    cdef _Numbers reader
    cdef list rows = []
    source.at = data
    source.end = source.at + len(data)
    base = None
    orders = NO_ORDERS
    _get(&source, "kind", 3, &kind)
    if kind & 1:
        _get(&source, "base epoch", U64_MAX, &number)
        _get(&source, "base ptid", U64_MAX, &length)
        base = Version(number, length)
    _get(&source, "epoch", U64_MAX, &number)
    _get(&source, "ptid", U64_MAX, &length)
    version = Version(number, length)
    _get(&source, "replicas", U32_MAX, &replicas)
    _get(&source, "partitions", _PARTITIONS_MAX, &partitions)
    if kind & 2:
        reader = _Numbers.__new__(_Numbers)
        reader.source = &source
        orders = from_numbers(reader.get)
    cells = _get_nodes(&source)
    keys = cells.keys
    row = <uint32_t*>malloc((keys + 1) * sizeof(uint32_t))
    if row == NULL:
        raise MemoryError()
    try:
        while source.at != source.end:
            if base is not None:
                _get(&source, "gap", _PARTITIONS_MAX, &number)
                following += number
            _get(&source, "group", U32_MAX, &number)
            length = number >> 1
            if not length or following > partitions or length > partitions - following:
                raise RemoteProtocolError(f"{length} rows from partition {following} on, of {partitions}")
            _get(&source, "cells", keys, &width)
            total += length * width
            if total > _CELLS_MAX:
                raise RemoteProtocolError(f"more than {_CELLS_MAX} cells")
            if number & 1:
                cells.read_row(&source, following, width, row)
                _get(&source, "shift", keys - 1 if keys else zero, &shift)
                for step in range(length):
                    rows.append((following + step, cells.make_row(width, row)))
                    if shift:
                        for i in range(width):
                            row[i] = <uint32_t>(((row[i] >> 3) + shift) % keys << 3 | row[i] & 7)
            else:
                if length * width > <uint64_t>(source.end - source.at):
                    raise RemoteProtocolError(
                        f"{length} rows of {width} cells announced, {source.end - source.at} bytes left"
                    )
                for step in range(length):
                    cells.read_row(&source, following + step, width, row)
                    rows.append((following + step, cells.make_row(width, row)))
            following += length
    finally:
        free(row)
    if base is None and following != partitions:
        raise RemoteProtocolError(f"{following} rows of {partitions} in a whole table")
    return TableUpdate(base, version, replicas, partitions, tuple(rows), orders)

"""The reference packing of partition tables with compact keys: slow, obvious, the oracle of `_keys_c`. Pure.

All numbers are varints: 7 bits per byte, the low ones first, the high bit of a byte says that another follows; the
shortest form only, 64 bits at most. An update is:

    0, or 1 + base epoch + base ptid      a whole table, or a difference from that version; 2 more: with orders
    epoch, ptid, replicas, partitions
    orders, if there are any              1 for balancing + 2 for choices, cut epoch, cut ptid, cut; n, then n leaving
                                          nodes, as the keys; if there are choices, n and as many of: id, time, epoch,
                                          ptid, last, known, bytes of the reason, reason; then the readmitted nodes
    n, then n nodes                       the key table, ascending: the first id, then differences less 1
    groups of rows, until the bytes end

The key of a node is its place in that table; a cell is `key << 3 | state`. A group has rows of consecutive partitions
with the same number of cells:

    gap (differences only)                partitions skipped since the group before
    rows << 1 | is_run                    at least one row
    cells                                 per row
    is_run 0: the cells, row by row
    is_run 1: the cells of the first row, then shift: each further row is the one before with every key moved up by
              shift, modulo n. Shift 0 repeats a row. Tables made by `balance.first_table` are all runs

Lengths and counts are checked before anything is made: nobody makes us allocate more than CELLS_MAX cells.
"""

from typing import Final

from neo_common.errors import LocalProtocolError, RemoteProtocolError
from neo_common.ids import Epoch, NodeId, Partition, Ptid, Version
from neo_common.model.orders import NO_ORDERS, from_numbers, to_numbers
from neo_common.model.partition_table import Cell, Row, TableUpdate
from neo_common.states import CellState

PARTITIONS_MAX: Final = 2**17
"""No table has more rows."""
CELLS_MAX: Final = 2**20
"""No table has more cells."""
RUN_GAIN: Final = 5
"""A run is worth its header when it saves more cells than this."""

_U32_MAX: Final = 2**32 - 1
_U64_MAX: Final = 2**64 - 1
_STATES: Final = tuple(CellState)

# ---------------------------------------------------------------------------------------------- encoding


def encode_update(update: TableUpdate) -> bytes:
    """Return *update* as bytes.

    Raises: LocalProtocolError when a number is out of range, a row has a node twice, rows do not ascend, or a whole
    table has not exactly its `partitions` rows.
    """
    base, version, replicas, partitions, rows, orders = update
    out = bytearray()
    _check_type("base", base, (Version, type(None)), Version)
    _check_type("version", version, Version, Version)
    _check_type("rows", rows, tuple, tuple)
    numbers = [] if orders == NO_ORDERS else to_numbers(orders)
    out.append((base is not None) + 2 * bool(numbers))
    if base is not None:
        _put(_checked("base epoch", base.epoch, _U64_MAX), out)
        _put(_checked("base ptid", base.ptid, _U64_MAX), out)
    _put(_checked("epoch", version.epoch, _U64_MAX), out)
    _put(_checked("ptid", version.ptid, _U64_MAX), out)
    _put(_checked("replicas", replicas, _U32_MAX), out)
    _put(_checked("partitions", partitions, PARTITIONS_MAX), out)
    for number in numbers:
        _put(number, out)
    _check_rows(base is None, partitions, rows)
    nodes = sorted({node for _, row in rows for node, _ in row})
    _put(len(nodes), out)
    last = -1
    for node in nodes:
        _put(node - last - 1, out)
        last = node
    keys = {node: key for key, node in enumerate(nodes)}
    coded = [(partition, [keys[node] << 3 | state for node, state in row]) for partition, row in rows]
    _put_groups(coded, base is not None, len(nodes), out)
    return bytes(out)


def _check_type(name: str, value: object, allowed: type | tuple[type, ...], wanted: type) -> None:
    if not isinstance(value, allowed):
        raise LocalProtocolError(f"{name}: a {type(value).__name__} where {wanted.__name__} is wanted")


def _checked(name: str, number: int, top: int) -> int:
    if not isinstance(number, int) or isinstance(number, bool):
        raise LocalProtocolError(f"{name}: a {type(number).__name__} where a number is wanted")
    if not 0 <= number <= top:
        raise LocalProtocolError(f"{name}: {number:#x} is outside 0..{top:#x}")
    return number


def _check_rows(is_whole: bool, partitions: int, rows: tuple[tuple[Partition, Row], ...]) -> None:
    if is_whole and len(rows) != partitions:
        raise LocalProtocolError(f"{len(rows)} rows of {partitions} in a whole table")
    following, cells = 0, 0
    for entry in rows:
        if not isinstance(entry, tuple) or len(entry) != 2:
            raise LocalProtocolError(f"rows: a {type(entry).__name__} where a partition and its row are wanted")
        partition, row = entry
        _checked("partition", partition, _U32_MAX)
        if partition >= partitions:
            raise LocalProtocolError(f"partition {partition} of {partitions}")
        if partition < following or (is_whole and partition != following):
            raise LocalProtocolError(f"partition {partition} where {following} is next")
        following = partition + 1
        _check_type(f"partition {partition}", row, tuple, tuple)
        cells += len(row)
        if cells > CELLS_MAX:
            raise LocalProtocolError(f"more than {CELLS_MAX} cells")
        seen = set()
        for cell in row:
            if not isinstance(cell, tuple) or len(cell) != 2:
                raise LocalProtocolError(f"partition {partition}: a {type(cell).__name__} where Cell is wanted")
            node, state = cell
            _checked(f"partition {partition}: node", node, _U32_MAX)
            _check_type(f"partition {partition}", state, CellState, CellState)
            if node in seen:
                raise LocalProtocolError(f"partition {partition}: node {node:#x} twice")
            seen.add(node)


def _put(number: int, out: bytearray) -> None:
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)


def _put_groups(rows: list[tuple[Partition, list[int]]], gaps: bool, keys: int, out: bytearray) -> None:
    following = 0
    start = 0
    while start < len(rows):
        length, shift = _run(rows, start, keys)
        stop = start + length
        if not shift_pays(length, len(rows[start][1])):
            shift = -1
            stop = _literal_end(rows, start, keys)
        partition, first = rows[start]
        if gaps:
            _put(partition - following, out)
        following = partition + stop - start
        _put((stop - start) << 1 | (shift >= 0), out)
        _put(len(first), out)
        if shift >= 0:
            for cell in first:
                _put(cell, out)
            _put(shift, out)
        else:
            for _, row in rows[start:stop]:
                for cell in row:
                    _put(cell, out)
        start = stop


def shift_pays(length: int, cells: int) -> bool:
    """Whether a run of *length* rows of *cells* cells is worth its header."""
    return (length - 1) * cells > RUN_GAIN


def _run(rows: list[tuple[Partition, list[int]]], start: int, keys: int) -> tuple[int, int]:
    """Return how many rows from *start* on make a run, and its shift."""
    partition, first = rows[start]
    if start + 1 == len(rows) or not first or not rows[start + 1][1]:
        return 1, 0
    shift = ((rows[start + 1][1][0] >> 3) - (first[0] >> 3)) % keys
    expected = first
    length = 1
    while start + length < len(rows):
        other, row = rows[start + length]
        expected = [((cell >> 3) + shift) % keys << 3 | cell & 7 for cell in expected]
        if other != partition + length or row != expected:
            break
        length += 1
    return length, shift


def _literal_end(rows: list[tuple[Partition, list[int]]], start: int, keys: int) -> int:
    """Return where the literal rows from *start* on end: at a gap, another number of cells, or a run that pays."""
    partition, first = rows[start]
    stop = start + 1
    while stop < len(rows):
        other, row = rows[stop]
        if other != partition + stop - start or len(row) != len(first):
            break
        if shift_pays(_run(rows, stop, keys)[0], len(row)):
            break
        stop += 1
    return stop


# ---------------------------------------------------------------------------------------------- decoding


class _Source:
    """Bytes and how far they have been read."""

    __slots__ = ("data", "position")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    @property
    def left(self) -> int:
        return len(self.data) - self.position

    def get(self, name: str, top: int) -> int:
        """Return the next number, at most *top*."""
        number = shift = 0
        while True:
            if not self.left:
                raise RemoteProtocolError(f"{name}: the bytes end within a number")
            byte = self.data[self.position]
            self.position += 1
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
            if shift > 63:
                raise RemoteProtocolError(f"{name}: a number of more than 64 bits")
        if number > _U64_MAX:
            raise RemoteProtocolError(f"{name}: a number of more than 64 bits")
        if shift > 7 and byte == 0:
            raise RemoteProtocolError(f"{name}: a number that is longer than it must be")
        if number > top:
            raise RemoteProtocolError(f"{name}: {number:#x} is outside 0..{top:#x}")
        return number


def decode_update(data: bytes) -> TableUpdate:
    """Return the update that *data*, all of it, encodes.

    Equal cells of all rows are one object. Raises: RemoteProtocolError when *data* is no update.
    """
    source = _Source(data)
    base = None
    kind = source.get("kind", 3)
    if kind & 1:
        base = Version(Epoch(source.get("base epoch", _U64_MAX)), Ptid(source.get("base ptid", _U64_MAX)))
    version = Version(Epoch(source.get("epoch", _U64_MAX)), Ptid(source.get("ptid", _U64_MAX)))
    replicas = source.get("replicas", _U32_MAX)
    partitions = source.get("partitions", PARTITIONS_MAX)
    orders = from_numbers(source.get) if kind & 2 else NO_ORDERS
    nodes = _get_nodes(source)
    cells = [Cell(node, state) for node in nodes for state in _STATES]
    rows: list[tuple[Partition, Row]] = []
    following, total = 0, 0
    while source.left:
        if base is not None:
            following += source.get("gap", PARTITIONS_MAX)
        head = source.get("group", _U32_MAX)
        length, is_run = head >> 1, head & 1
        if not 0 < length <= partitions - following:
            raise RemoteProtocolError(f"{length} rows from partition {following} on, of {partitions}")
        width = source.get("cells", len(nodes))
        total += length * width
        if total > CELLS_MAX:
            raise RemoteProtocolError(f"more than {CELLS_MAX} cells")
        if is_run:
            row = _get_row(source, following, width, len(nodes))
            shift = source.get("shift", max(len(nodes) - 1, 0))
            for step in range(length):
                moved = (((key + step * shift) % len(nodes), state) for key, state in row)
                rows.append((Partition(following + step), tuple(cells[key * len(_STATES) + s] for key, s in moved)))
        else:
            if length * width > source.left:
                raise RemoteProtocolError(f"{length} rows of {width} cells announced, {source.left} bytes left")
            for partition in range(following, following + length):
                row = _get_row(source, partition, width, len(nodes))
                rows.append((Partition(partition), tuple(cells[key * len(_STATES) + s] for key, s in row)))
        following += length
    if base is None and following != partitions:
        raise RemoteProtocolError(f"{following} rows of {partitions} in a whole table")
    return TableUpdate(base, version, replicas, partitions, tuple(rows), orders)


def _get_nodes(source: _Source) -> list[NodeId]:
    count = source.get("nodes", _U32_MAX)
    if count > source.left:
        raise RemoteProtocolError(f"{count} nodes announced, {source.left} bytes left")
    nodes: list[NodeId] = []
    last = -1
    for _ in range(count):
        last += 1 + source.get("node", _U32_MAX)
        if last > _U32_MAX:
            raise RemoteProtocolError(f"node: {last:#x} is outside 0..{_U32_MAX:#x}")
        nodes.append(NodeId(last))
    return nodes


def _get_row(source: _Source, partition: int, width: int, keys: int) -> list[tuple[int, int]]:
    """Return *width* pairs of key and state."""
    row: list[tuple[int, int]] = []
    seen = set()
    for _ in range(width):
        cell = source.get("cell", _U32_MAX)
        key, state = cell >> 3, cell & 7
        if key >= keys:
            raise RemoteProtocolError(f"partition {partition}: key {key} of {keys}")
        if state >= len(_STATES):
            raise RemoteProtocolError(f"partition {partition}: {state} is no CellState")
        if key in seen:
            raise RemoteProtocolError(f"partition {partition}: key {key} twice")
        seen.add(key)
        row.append((key, state))
    return row

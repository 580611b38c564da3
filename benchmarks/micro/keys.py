"""What partition tables cost: bytes packed, milliseconds to pack and unpack, beside the reference.

    .venv/bin/python benchmarks/micro/keys.py

Goals: 1,000 x 2 on 10 nodes below 2.5 kB, 12,000 x 3 on 100 nodes below 80 kB, each way well below 1 ms per 1,000 rows.
"""

import timeit
from random import Random

from neo_common.ids import Epoch, NodeId, Ptid, Version
from neo_common.model import _keys_c, _keys_py
from neo_common.model.balance import first_table
from neo_common.model.partition_table import Cell, PartitionTable, TableUpdate, whole
from neo_common.states import CellState

REPEATS = 5
VERSION = Version(Epoch(3 << 24 | 1), Ptid(5))


def nodes(count: int) -> list[NodeId]:
    """Return the first storages."""
    return [NodeId(0x01000001 + n) for n in range(count)]


def scattered(partitions: int, width: int, count: int) -> PartitionTable:
    """Return a table without any pattern: what years of moves leave, at worst."""
    rng = Random(partitions)
    rows = [tuple(Cell(n, CellState.UP_TO_DATE) for n in rng.sample(nodes(count), width)) for _ in range(partitions)]
    return PartitionTable(VERSION, width - 1, rows)


TABLES = {
    "1,000 x 2 on 10, scattered": scattered(1000, 2, 10),
    "12,000 x 3 on 100, scattered": scattered(12_000, 3, 100),
    "1,000 x 2 on 10, first": first_table(nodes(10), 1000, 1, VERSION),
    "12,000 x 3 on 100, first": first_table(nodes(100), 12_000, 2, VERSION),
}


def best_ms(function: object, argument: TableUpdate | bytes, number: int) -> float:
    """Return the time of one call, in milliseconds."""
    timer = timeit.Timer("function(argument)", globals={"function": function, "argument": argument})
    return min(timer.repeat(REPEATS, number)) / number * 1e3


def main() -> None:
    """Print a table."""
    print(f"{'ms':30} {'bytes':>7}   {'pack':>7} {'unpack':>7}   {'the reference':>17}")
    for name, table in TABLES.items():
        update = whole(table)
        packed = _keys_c.encode_update(update)
        times = [
            best_ms(function, argument, number)
            for module, number in ((_keys_c, 10), (_keys_py, 1))
            for function, argument in ((module.encode_update, update), (module.decode_update, packed))
        ]
        print(f"{name:30} {len(packed):>7,}   {times[0]:7.2f} {times[1]:7.2f}   {times[2]:8.1f} {times[3]:8.1f}")


if __name__ == "__main__":
    main()

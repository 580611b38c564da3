"""What packets cost: nanoseconds to encode, decode, frame and read the hot ones, beside the reference.

    .venv/bin/python benchmarks/micro/codec.py [packet...]

Best of `REPEATS` runs, one core. The commit path of a tiny transaction codes about ten packets of this size.
"""

import sys
import timeit
from collections.abc import Callable
from types import ModuleType

from neo_common.checksum import checksum
from neo_common.ids import Epoch, Oid, Partition, Ptid, Session, Tid, Ttid, Version
from neo_common.wire import _codec_c, _codec_py
from neo_common.wire.schema import (
    CODES,
    PACKETS,
    AnswerLoad,
    AskLoad,
    Commit,
    Compression,
    Data,
    Finish,
    Finished,
    Fwd,
    Invalidate,
    Kind,
    Metadata,
    Mode,
    Packet,
    Ping,
    Record,
    Vote,
    Voted,
    Work,
    Write,
)

REPEATS = 5
RUN_S = 0.05

E, OID, TID = Epoch(3 << 24 | 1), Oid(123_456_789), Tid(0x03F2_1234_5678_9ABC)
TTID, PARTS, NONE = Ttid(Session(3 << 32 | 7), 42), (Partition(7),), Tid(0)
VERSION = Version(E, Ptid(5))
META = Metadata(b"admin", b"/folder/document", b"")


def data(size: int) -> Data:
    """Return a value of *size* bytes."""
    value = bytes(range(256)) * (size // 256 + 1)
    return Data(Compression.NONE, checksum(value[:size]), size, value[:size])


WRITE = Write(OID, TID, NONE, data(128))
WORK = Work(Partition(7), 0, (WRITE,), ())
RECORD = Record(TTID, 1, Partition(7), PARTS, META, 0, (WRITE,), (), Mode.C, TID, NONE)
HOT: dict[str, Packet] = {
    "Ping": Ping(),
    "AskLoad": AskLoad(E, OID, TID),
    "AnswerLoad 128 B": AnswerLoad(TID, NONE, data(128)),
    "AnswerLoad 64 kB": AnswerLoad(TID, NONE, data(65_536)),
    "AnswerLoad 4 MB": AnswerLoad(TID, NONE, data(4 * 2**20)),
    "Vote 1 x 128 B": Vote(TTID, 1, E, VERSION, PARTS, META, (WORK,), Mode.C, TID, NONE),
    "Vote 100 x 128 B": Vote(
        TTID, 1, E, VERSION, PARTS, META, (WORK._replace(writes=(WRITE,) * 100),), Mode.C, TID, NONE
    ),
    "Fwd 1 x 128 B": Fwd(E, VERSION, RECORD),
    "Voted": Voted(TTID, 1, PARTS),
    "Finish": Finish(TTID, 1, E, PARTS, (OID,), Mode.C, NONE),
    "Finished": Finished(TTID, 1, TID),
    "Commit": Commit(TTID, 1, TID, PARTS, (), TID),
    "Invalidate 100": Invalidate(TID, TTID, 1, (OID,) * 100, TID),
}


def best_ns(function: Callable[[], object]) -> float:
    """Return the time of one call, in nanoseconds."""
    timer = timeit.Timer(function)
    once = timer.timeit(1)
    number = max(1, int(RUN_S / max(once, 1e-7)))
    return min(timer.repeat(REPEATS, number)) / number * 1e9


def measure(codec: ModuleType, packet: Packet) -> list[float]:
    """Return the times of encode, decode, frame and feed."""
    request = 0 if PACKETS[CODES[type(packet)]].kind is Kind.NOTIFICATION else 7
    payload, framed = codec.encode(packet), codec.frame(packet, request)
    reader = codec.FrameReader()
    return [
        best_ns(lambda: codec.encode(packet)),
        best_ns(lambda: codec.decode(type(packet), payload)),
        best_ns(lambda: codec.frame(packet, request)),
        best_ns(lambda: reader.feed(framed)),
    ]


def main() -> None:
    """Print a table; arguments choose packets by the beginning of their names."""
    print(f"{'ns':18} {'bytes':>8}   {'encode':>9} {'decode':>9} {'frame':>9} {'feed':>9}   {'the reference':>39}")
    for name, packet in HOT.items():
        if len(sys.argv) > 1 and not name.startswith(tuple(sys.argv[1:])):
            continue
        times = [*measure(_codec_c, packet), *measure(_codec_py, packet)]
        numbers = [f"{time:9,.0f}" for time in times]
        size = len(_codec_c.encode(packet))
        print(f"{name:18} {size:>8,}   {' '.join(numbers[:4])}   {' '.join(numbers[4:])}")


if __name__ == "__main__":
    main()

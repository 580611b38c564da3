"""The client's cache against a dict that forgets nothing: whatever it answers is true, and it keeps its bound."""

import itertools
import random
import tracemalloc

from hypothesis import example, given, settings
from hypothesis import strategies as st

from neo_client.core.cache import ENTRY_OVERHEAD, Cache
from neo_common.ids import NO_TID, Oid, Tid

OIDS = st.integers(0, 5).map(Oid)


class Truth:
    """Every revision of every object, and what the client has been told."""

    def __init__(self) -> None:
        self.last = Tid(10)
        self.revisions: dict[Oid, list[Tid]] = {Oid(o): [Tid(1)] for o in range(6)}

    def at(self, oid: Oid, before: Tid) -> tuple[Tid, Tid] | None:
        """The revision just below *before*, and its end as of now."""
        tids = self.revisions[oid]
        below = [t for t in tids if t < before]
        if not below:
            return None
        return below[-1], min((t for t in tids if t > below[-1]), default=NO_TID)

    def value(self, oid: Oid, tid: Tid) -> bytes:
        return b"%d@%d " % (oid, tid) * (1 + oid * 40)


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("commit"), st.sets(OIDS, min_size=1)),
        st.tuples(st.just("load"), OIDS, st.integers(0, 30)),
        st.tuples(st.just("cut"), st.sets(OIDS)),
        st.tuples(st.just("clear"), st.none()),
        st.tuples(st.just("drop"), OIDS),
    ),
    max_size=60,
)


@settings(max_examples=300, deadline=None)
@given(STEPS, st.sampled_from((0, 700, 2500, 10**6)))
@example([("load", Oid(0), 0), ("load", Oid(0), 0), ("load", Oid(1), 0)], 700)
def test_answers_are_true_and_the_bound_is_kept(steps: list[tuple], size_max: int) -> None:
    cache, truth = Cache(size_max), Truth()
    for step in steps:
        match step:
            case "commit", oids:
                truth.last = Tid(truth.last + 1)
                for oid in oids:
                    truth.revisions[oid].append(truth.last)
                    cache.invalidate(truth.last, oid)
            case "cut", missed:
                # The client was away: these have changed, and nobody told it.
                cache.cut(truth.last)
                truth.last = Tid(truth.last + 1)
                for oid in missed:
                    truth.revisions[oid].append(truth.last)
            case "clear", _:
                cache.clear()
            case "drop", oid:
                cache.drop(oid)
            case "load", oid, back:
                before = Tid(max(1, truth.last + 1 - back))
                expected, hit = truth.at(oid, before), cache.get(oid, before)
                if hit is not None:
                    assert expected is not None
                    assert (hit.tid, hit.value) == (expected[0], truth.value(oid, expected[0]))
                    if hit.end:
                        assert hit.end >= before
                        assert not expected[1] or hit.end <= expected[1]
                    else:
                        assert not expected[1]
                elif expected is not None:
                    value = truth.value(oid, expected[0])
                    has_room = cache.size + len(value) + ENTRY_OVERHEAD <= size_max
                    cache.put(oid, expected[0], expected[1], value)
                    if has_room:  # else what is new may be the first to go: the others are used more often
                        assert cache.current(oid) == (expected[0] if not expected[1] else cache.current(oid))
        assert cache.size <= size_max
        entries = [e for es in cache._entries.values() for e in es]
        assert cache.size == sum(e.size for e in entries)
        assert len(cache) == len(entries)
        for es in cache._entries.values():
            assert all(a.end and a.end <= b.tid for a, b in itertools.pairwise(es))


def test_often_used_stays_when_a_scan_passes() -> None:
    cache = Cache(100 * (ENTRY_OVERHEAD + 10))
    for oid in range(20):
        cache.put(Oid(oid), Tid(1), NO_TID, bytes(10))
    for _ in range(8):
        for oid in range(20):
            assert cache.get(Oid(oid), Tid(5))
    for oid in range(1000, 1180):  # more than the cache holds
        cache.put(Oid(oid), Tid(1), NO_TID, bytes(10))
    assert all(cache.get(Oid(oid), Tid(5)) for oid in range(20))


def test_yesterdays_favourites_go_in_the_end() -> None:
    cache = Cache(100 * (ENTRY_OVERHEAD + 10))
    for oid in range(20):
        cache.put(Oid(oid), Tid(1), NO_TID, bytes(10))
    for _ in range(200):
        for oid in range(20):
            cache.get(Oid(oid), Tid(5))
    for oid in range(1000, 9000):
        cache.put(Oid(oid), Tid(1), NO_TID, bytes(10))
    assert not [oid for oid in range(20) if cache.get(Oid(oid), Tid(5))]


def test_overhead_is_what_an_entry_really_takes() -> None:
    rng = random.Random(1)
    oids = [Oid(rng.randrange(2**40)) for _ in range(5000)]
    cache = Cache(10**9)
    tracemalloc.start()
    for oid in oids:
        cache.put(oid, Tid(oid + 2**45), NO_TID, b"%100d" % oid)
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 0.75 < cache.size / used < 1.25, f"{used / len(oids) - 133:.0f} bytes per entry beyond its value"

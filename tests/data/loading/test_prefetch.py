"""Reading ahead changes nothing but the waiting."""

import threading
import time
from collections.abc import Iterator

import pytest

from ropewalk.data.loading.loader import prefetch


def readers() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("read ahead")]


@pytest.mark.parametrize("depth", [0, 1, 2, 7, 50])
def test_the_order_is_the_same(depth: int) -> None:
    assert list(prefetch(iter(range(20)), depth)) == list(range(20))
    assert list(prefetch(iter(()), depth)) == []


@pytest.mark.parametrize("depth", [0, 3])
def test_an_error_comes_in_its_turn(depth: int) -> None:
    def items() -> Iterator[int]:
        yield from range(5)
        raise OSError("the disk is gone")

    seen = []
    with pytest.raises(OSError, match="the disk is gone"):
        for item in prefetch(items(), depth):
            seen.append(item)
    assert seen == list(range(5)) and not readers()


def test_no_more_than_depth_items_are_prepared() -> None:
    produced: list[int] = []

    def items() -> Iterator[int]:
        for number in range(100):
            produced.append(number)
            yield number

    reading = prefetch(items(), 3)
    assert [next(reading) for _ in range(2)] == [0, 1]
    deadline = time.monotonic() + 5
    while len(produced) < 5 and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(0.05)
    assert produced == [0, 1, 2, 3, 4]
    reading.close()
    assert not readers()


def test_computing_does_not_wait_for_a_slow_reader() -> None:
    """Reading takes 20 ms and computing 30: 50 a step in turn, and 30 a step when read ahead."""

    def items() -> Iterator[int]:
        for number in range(12):
            time.sleep(0.02)
            yield number

    waited = []
    reading = prefetch(items(), 2)
    while True:
        started = time.monotonic()
        if next(reading, None) is None:
            break
        waited.append(time.monotonic() - started)
        time.sleep(0.03)
    assert waited[0] >= 0.02
    assert sorted(waited[1:])[len(waited) // 2] < 0.015

"""A column's results: one process writes at a time, and only what is pending is measured."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from changed_settings import GOOD

from ropewalk.conf.artifacts.locks import lock_of
from ropewalk.eval.measure import forward
from ropewalk.eval.measure.store import ResultStore
from ropewalk.eval.requests import Request, Text
from ropewalk.launch.config.compose import compose

REQUESTS = forward.unique(Text(np.arange(n, n + 6)) for n in range(7))


class Counting:
    """An engine of two requests a batch, whose losses are the tokens."""

    body = None

    def __init__(self) -> None:
        self.measured: list[list[int]] = []

    def batches(self, requests: Sequence[Request]) -> list[Sequence[Request]]:
        return [requests[n : n + 2] for n in range(0, len(requests), 2)]

    def measure(self, requests: Sequence[Any]) -> list[np.ndarray]:
        self.measured.append([int(request.ids[0]) for request in requests])
        return [request.ids[1:].astype(np.float32) for request in requests]


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Counting:
    made = Counting()

    @contextmanager
    def engine(*_: object, **__: object) -> Iterator[Counting]:
        yield made

    monkeypatch.setattr(forward, "engine", engine)
    return made


def measure(store: ResultStore) -> Any:
    column: Any = SimpleNamespace(label="base")
    config = compose([*GOOD, "model.path=organisation/model"])
    return forward.measure(column, REQUESTS, store, config, None)


def test_the_batches_of_an_interrupted_column_are_those_of_a_whole_one(
    engine: Counting, tmp_path: Path
) -> None:
    """So that its results are the same bits: numbers 0, 1 and 4 are there."""
    store = ResultStore(tmp_path)
    names = list(REQUESTS)
    store.extend({names[n]: np.zeros(5, np.float32) for n in (0, 1, 4)})
    results = measure(store)
    assert engine.measured == [[2, 3], [5], [6]] and list(results) == names
    assert sorted(ResultStore(tmp_path).results) == sorted(names)


def test_damage_is_told_once_and_gone_after_the_repair(
    engine: Counting, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One line is cut in its middle, one is of a request that nobody asks for any more."""
    lines, other = tmp_path / "results.jsonl", {"other": np.zeros(5, np.float32)}
    store = ResultStore(tmp_path)
    store.extend(other)
    expected = measure(store)
    whole = lines.read_bytes().splitlines(keepends=True)
    lines.write_bytes(b"".join([whole[0][:20], b"\n", *whole[1:3], whole[3][:30] + whole[3][31:]]))
    with caplog.at_level("INFO"):
        np.testing.assert_equal(measure(ResultStore(tmp_path)), expected)
    assert [line for line in caplog.messages if "damaged" in line] == [
        f"eval: 2 results in {tmp_path} are damaged; measured again where they are asked for"
    ]
    caplog.clear()
    with caplog.at_level("INFO"):
        assert ResultStore(tmp_path).damaged == 0
    assert not caplog.messages
    assert set(ResultStore(tmp_path).results) == set(REQUESTS)


def test_damage_of_what_nobody_asks_for_is_removed_without_a_measurement(
    engine: Counting, tmp_path: Path
) -> None:
    """Also what an earlier version left beside its repair."""
    lines = tmp_path / "results.jsonl"
    measure(ResultStore(tmp_path))
    whole, measured = lines.read_bytes(), list(engine.measured)
    lines.write_bytes(whole[:20] + b"\n" + whole)
    store = ResultStore(tmp_path)
    assert store.damaged == 1
    measure(store)
    assert engine.measured == measured and lines.read_bytes() == whole


def test_a_look_at_damaged_results_writes_nothing(tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").write_bytes(b"{\n")
    assert ResultStore(tmp_path).damaged == 1
    assert (tmp_path / "results.jsonl").read_bytes() == b"{\n"


def test_a_second_run_waits_and_takes_what_the_first_wrote(
    engine: Counting, tmp_path: Path
) -> None:
    folder, other = tmp_path / "column", Counting()
    first, second = ResultStore(folder), ResultStore(folder)
    lock = lock_of(folder)
    lock.acquire()
    thread = threading.Thread(target=lambda: measure(second))
    thread.start()
    thread.join(0.5)
    assert thread.is_alive() and not engine.measured
    for part in forward.passes(other, REQUESTS.values(), REQUESTS):  # type: ignore[arg-type]
        first.extend(part)
    lock.release()
    thread.join(30)
    assert not thread.is_alive() and not engine.measured
    assert len((folder / "results.jsonl").read_bytes().splitlines()) == len(REQUESTS)


@pytest.mark.parametrize(
    ("zero_stage", "ranks", "fits", "expected"),
    [
        (3, True, True, True),
        (0, True, False, False),
        (3, False, True, True),
        (None, False, False, False),
        (None, True, True, False),
        (None, True, False, True),
    ],
)
def test_weights_are_partitioned_as_set_or_where_a_device_lacks_memory(
    monkeypatch: pytest.MonkeyPatch, zero_stage: int | None, ranks: bool, fits: bool, expected: bool
) -> None:
    """One process has them whole, unless it is set."""
    config = compose([*GOOD, "model.path=organisation/model"])
    config.eval.zero_stage = zero_stage
    monkeypatch.setattr(forward.dist, "is_initialized", lambda: ranks)
    monkeypatch.setattr(forward.models, "parameter_count", lambda _: 8)
    monkeypatch.setattr(forward.one_reader, "on_reader", lambda read: read())
    monkeypatch.setattr(forward.inference, "fits_device", lambda numbers, dtype: fits)
    base: Any = None
    assert forward.is_partitioned(config, base) is expected


def test_what_decides_a_result_names_backend_and_ranks_only_where_they_differ() -> None:
    """Added later, so that results of before are found again."""
    config = compose([*GOOD, "model.path=organisation/model"])
    usual = forward.how_measured(config)
    assert set(usual) == {"precision", "kernel", "device", "format"} and usual["format"] == 2
    config.eval.backend, config.eval.sp_size = "vllm", 2
    assert forward.how_measured(config) == usual | {"backend": "vllm", "sp_size": 2}

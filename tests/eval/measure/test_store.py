"""Results come back from disk as they were, and a damaged one is measured again."""

from pathlib import Path

import numpy as np
import pytest

from ropewalk.eval.measure.store import LINES, LOSSES, ResultStore
from ropewalk.eval.requests import Prompt, Prompts, Reply, Text, digest

RESULTS = {
    "a": np.array([0.1, 2.5, np.nan], np.float32),
    "b": (Reply(2, 0.1 + 0.2), Reply(0, 7.0, (3, 1))),
    "c": np.array([4.0], np.float32),
}


def filled(folder: Path) -> Path:
    store = ResultStore(folder)
    for name, result in RESULTS.items():
        store.append(name, result)
    return folder


def assert_equal(store: ResultStore, names: str) -> None:
    assert sorted(store.results) == sorted(names)
    for name in names:
        np.testing.assert_equal(store.results[name], RESULTS[name])


def test_results_come_back_bit_for_bit(tmp_path: Path) -> None:
    assert_equal(ResultStore(filled(tmp_path)), "abc")


def test_a_line_that_was_cut_is_measured_again_and_spoils_no_other(tmp_path: Path) -> None:
    path = filled(tmp_path) / LINES
    path.write_bytes(path.read_bytes()[:-7])
    store = ResultStore(tmp_path)
    assert_equal(store, "ab")
    store.append("c", RESULTS["c"])
    assert_equal(ResultStore(tmp_path), "abc")


@pytest.mark.parametrize("file", [LINES, LOSSES])
def test_every_changed_byte_is_noticed(tmp_path: Path, file: str) -> None:
    path = filled(tmp_path) / file
    original = path.read_bytes()
    for place in range(len(original)):
        if original[place : place + 1] == b"\n":
            continue
        changed = original[:place] + bytes([original[place] ^ 1]) + original[place + 1 :]
        path.write_bytes(changed)
        store = ResultStore(tmp_path)
        assert store.damaged and set(store.results) < set(RESULTS)
        assert_equal(store, "".join(store.results))


@pytest.mark.parametrize("file", [LINES, LOSSES])
def test_a_folder_in_a_files_stead_is_moved_aside_and_all_is_measured_again(
    tmp_path: Path, file: str
) -> None:
    path = filled(tmp_path) / file
    path.unlink()
    path.mkdir()
    (path / "mine").touch()
    store = ResultStore(tmp_path)
    assert not {"a", "c"} & set(store.results)
    for name in set(RESULTS) - set(store.results):
        store.append(name, RESULTS[name])
    assert_equal(ResultStore(tmp_path), "abc")
    assert (tmp_path / f"{file}.damaged1" / "mine").exists()


def test_requests_are_known_by_their_content() -> None:
    ids, answer = np.arange(5), np.arange(2)
    requests = [
        Text(ids), Text(ids, 2), Text(ids[:4]), Prompts((Prompt(ids, answer),)),
        Prompts((Prompt(ids, answer, 3),)), Prompts((Prompt(ids, answer, 0, 4),)),
        Prompts((Prompt(ids, answer, 0, 4, ("x",)),)), Prompts((Prompt(ids, answer[:1]),)),
        Prompts((Prompt(np.arange(4), np.array([4, 0, 1])),)),
    ]  # fmt: skip
    assert len({digest(request) for request in requests}) == len(requests)
    assert digest(Text(ids)) == digest(Text(ids.astype(np.int32).copy()))

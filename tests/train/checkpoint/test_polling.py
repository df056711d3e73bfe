"""Which rank publishes, drops and lists checkpoints, and when: stand-ins for mesh and writer."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ropewalk.conf.errors import RopewalkError
from ropewalk.train.checkpoint import checkpointer
from ropewalk.train.checkpoint.checkpointer import Checkpointer


class Writer:
    """Keeps the jobs."""

    def __init__(self) -> None:
        self.jobs: list[Callable[[], None]] = []
        self.busy, self.error = False, None

    def submit(self, job: Callable[[], None]) -> None:
        self.jobs.append(job)

    def wait(self) -> None:
        pass


def saving(folder: Path, rank: int, pending: dict[str, Any] | None) -> Any:
    """A checkpointer without an engine; `pending`: metadata of a checkpoint that is written."""
    made = object.__new__(Checkpointer)
    made.path, made.pending, made.publishing = folder, pending, False
    made.mesh = SimpleNamespace(rank=rank, world_size=2)  # type: ignore[assignment]
    made.engine = SimpleNamespace(device="cpu")
    made.writer = Writer()  # type: ignore[assignment]
    made.failed_saves, made.last_saved_step = 0, -1
    made.train = SimpleNamespace(checkpoint=SimpleNamespace(interval_steps=2))  # type: ignore[assignment]
    return made


@pytest.mark.parametrize("rank", [0, 1])
def test_rank_0_publishes_what_all_have_written_and_then_it_counts(
    tmp_path: Path, rank: int
) -> None:
    one = saving(tmp_path, rank, {"step": 6})
    assert one.poll(True, False) and not one.publishing and not one.writer.jobs
    assert one.poll(False, False) and one.publishing and one.last_saved_step == -1
    assert len(one.writer.jobs) == (rank == 0)
    assert one.poll(True, False) and one.pending  # rank 0 is publishing
    assert one.poll(False, False) and one.pending is None and not one.publishing
    assert one.last_saved_step == 6 and len(one.writer.jobs) == (rank == 0)
    assert one.poll(False, True) and one.failed_saves == 0  # nothing is pending


@pytest.mark.parametrize("rank", [0, 1])
def test_a_failed_checkpoint_is_dropped_and_rank_0_removes_it(
    tmp_path: Path, rank: int, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "step-00000006.tmp").mkdir()
    one = saving(tmp_path, rank, {"step": 6})
    one.writer.error = OSError("full") if rank else ValueError("odd")
    assert one.local_flags() == (False, True) and not one.poll(False, True)
    assert (one.failed_saves, one.pending, one.publishing) == (1, None, False)
    assert one.local_flags() == (False, False) and one.last_saved_step == -1
    assert (tmp_path / "step-00000006.tmp").exists() is (rank == 1)
    printed = capsys.readouterr().err
    assert f"rank {rank}: the checkpoint of step 6" in printed
    assert ("keep_last lower" in printed) is (rank == 1)  # a way out of a full disk


def test_the_last_checkpoint_must_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpointer, "any_rank", lambda *flags: flags)
    good, bad = saving(tmp_path, 1, {"step": 6}), saving(tmp_path, 1, {"step": 6})
    good.finish()
    assert good.last_saved_step == 6
    bad.writer.error = OSError("full")
    with pytest.raises(RopewalkError, match="the last checkpoint could not be written"):
        bad.finish()


@pytest.mark.parametrize(("interval", "last", "saves"), [(2, 4, 1), (2, 6, 0), (0, 4, 0)])
def test_a_checkpoint_after_the_last_step_is_made_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interval: int, last: int, saves: int
) -> None:
    one, states = saving(tmp_path, 0, None), list[Any]()
    monkeypatch.setattr(one, "save", states.append)
    one.train.checkpoint.interval_steps, one.last_saved_step = interval, last
    one.save_final(SimpleNamespace(step=6))
    assert len(states) == saves


def test_all_ranks_see_what_rank_0_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder may be another one on the disk of another node."""
    listed = [("step-00000006", {"step": 6})]

    def broadcast(objects: list[Any], src: int, device: str) -> None:
        assert src == 0 and len(objects) == 1
        objects[0] = listed

    monkeypatch.setattr(checkpointer.dist, "broadcast_object_list", broadcast)
    assert saving(tmp_path, 1, None)._checkpoints() == listed


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(
    ("current", "restored", "told"),
    [(b"1\n2\n", False, False), (b"1\n2\n3\n", True, False), (b"1\nx\n", True, True), (None, 1, 1)],
)
def test_metrics_go_back_to_the_lines_of_the_checkpoint(
    tmp_path: Path, caplog: Any, rank: int, current: bytes | None, restored: bool, told: bool
) -> None:
    (tmp_path / "step-00000006").mkdir()
    (tmp_path / "step-00000006" / "metrics.jsonl").write_bytes(b"1\n2\n")
    one = saving(tmp_path, rank, None)
    one.metrics_file = tmp_path / "metrics.jsonl"
    if current is not None:
        one.metrics_file.write_bytes(current)
    lines = list[str]()
    log = SimpleNamespace(info=lines.append)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpointer, "log", log)
        one._restore_metrics("step-00000006")
    after = one.metrics_file.read_bytes() if one.metrics_file.exists() else None
    assert after == (b"1\n2\n" if restored and rank == 0 else current)
    assert bool(lines) is (bool(told) and rank == 0)

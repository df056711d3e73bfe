"""datatrove's executor makes the same store as one process; a killed task is redone alone."""

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from data_fixture import RECIPE
from stores import content_of, texts

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("datatrove") is None,
    reason="datatrove is missing: pip install 'ropewalk[datatrove]'",
)

SCRIPT = """
import os, signal, sys
from pathlib import Path
from datatrove.executor import LocalPipelineExecutor
from ropewalk.data.tokens import shards, text_store
from ropewalk.data import stage
from ropewalk.data.sources import units
from ropewalk.data.datatrove_step import MakeShards
from ropewalk.launch.config.compose import compose

shards.SHARD_BYTES, units.UNIT_BYTES, die = 1500, 1, {die!r}

class KilledStep(MakeShards):
    def run(self, data=None, rank=0, world_size=1):
        if rank == die:
            shard = text_store.write_shard
            kill = lambda: os.kill(os.getpid(), signal.SIGKILL)
            text_store.write_shard = lambda *args: (shard(*args), kill())
        return super().run(data, rank, world_size)

if __name__ == "__main__":
    config = compose({overrides!r})
    LocalPipelineExecutor([KilledStep(config, stage.Inputs(None))], tasks=4, workers={workers},
                          start_method="fork", logging_dir={log!r}).run()
"""


class ShardsFixture:
    """A folder with a source of six shards."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "conf" / "recipe").mkdir(parents=True)
        (folder / "conf" / "recipe" / "tiny.yaml").write_text(RECIPE)
        texts(folder / "books", [1400, 900, 1300, 1200, 1450, 1000])

    def overrides(self, cache: str) -> list[str]:
        search = f"hydra.searchpath=[file://{self.folder / 'conf'}]"
        return [
            "recipe=tiny",
            search,
            f"data.sources.books.path={self.folder / 'books'}",
            f"cache_dir={self.folder / cache}",
        ]

    def execute(self, cache: str, workers: int, die: int | None = None) -> int:
        """Run four tasks in a new process and return its exit code.

        The executor's manager process survives a kill, so the process group is killed too.
        """
        overrides, log = self.overrides(cache), str(self.folder / f"{cache}.log")
        code = SCRIPT.format(die=die, overrides=overrides, workers=workers, log=log)
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        with (self.folder / "stderr.txt").open("w") as stderr:
            process = subprocess.Popen(
                [sys.executable, "-c", code], env=env, stderr=stderr, start_new_session=True
            )
        try:
            return process.wait(120)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)

    def finish(self, cache: str) -> dict[str, str]:
        """Merge the shards in this process; returns the content of the cache."""
        from ropewalk.data import stage
        from ropewalk.launch.config.compose import compose

        config, inputs = compose(self.overrides(cache)), stage.Inputs(None)
        if (self.folder / f"{cache}.log").exists():
            assert stage.missing_shards(config, inputs) == []
        stage.run(config, inputs, self.folder / f"{cache}.out")
        return content_of(self.folder / cache)

    def done(self, cache: str) -> list[str]:
        return sorted(p.name for p in (self.folder / f"{cache}.log" / "completions").glob("*"))

    def shards(self, cache: str) -> dict[str, int]:
        return {
            p.parent.name: p.stat().st_mtime_ns
            for p in (self.folder / cache).rglob("tokens.bin")
            if p.parent.suffix != ".tmp"
        }


@pytest.fixture
def fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    from ropewalk.data.sources import units
    from ropewalk.data.tokens import shards

    monkeypatch.setattr(shards, "SHARD_BYTES", 1500)
    monkeypatch.setattr(units, "UNIT_BYTES", 1)
    return ShardsFixture(tmp_path)


def test_four_tasks_of_the_local_executor_equal_one_process(fixture: ShardsFixture) -> None:
    assert fixture.execute("cache", workers=2) == 0
    assert (fixture.done("cache"), len(fixture.shards("cache"))) == (
        ["00000", "00001", "00002", "00003"],
        6,
    )
    assert fixture.finish("cache") == fixture.finish("whole")


def test_a_killed_task_is_redone_alone(fixture: ShardsFixture) -> None:
    """Tasks 0 and 1 end, 2 is killed: only 2 and 3 run again, and finished shards stay."""
    assert fixture.execute("cache", workers=1, die=2) == -signal.SIGKILL
    before = fixture.shards("cache")
    assert (fixture.done("cache"), sorted(before)) == (
        ["00000", "00001"],
        ["00000", "00001", "00004", "00005"],
    )
    assert fixture.execute("cache", workers=1) == 0
    assert fixture.done("cache") == ["00000", "00001", "00002", "00003"]
    after = fixture.shards("cache")
    assert {name: after[name] for name in before} == before and len(after) == 6
    assert fixture.finish("cache") == fixture.finish("whole")

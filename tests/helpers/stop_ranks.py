"""Programs of a rank in test_stop.py. A forked rank finds them by module name."""

from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import ranks
import torch.distributed as dist

from ropewalk.conf.errors import Stopped
from ropewalk.train import worker
from ropewalk.train.launcher.stop import StopSignal


def train(folder: Path, moment: str) -> list[str]:
    """What a rank does when rank 0 alone sees a request to stop at `moment`; the last is its end.

    The real `worker.train`, with stand-ins for model and steps.
    """
    done: list[str] = []
    own = folder / str(dist.get_rank())
    own.mkdir()

    def request(now: str) -> None:
        done.append(now)
        if now == moment and dist.get_rank() == 0:
            (own / "stop").touch()

    launcher = SimpleNamespace(start_timeout_s=60, hang_timeout_s=60, bind_numa=True)
    settings = SimpleNamespace(deterministic=False, steps=3, launcher=launcher)
    inputs = SimpleNamespace(folder=own, config=SimpleNamespace(train=settings))
    state = SimpleNamespace(step=3 if moment == "nothing left" else 2)
    trainer = SimpleNamespace(state=state, train=lambda: request("train"))

    def assemble(_: object) -> SimpleNamespace:
        request("assemble")
        if state.step == 3 and dist.get_rank() == 0:
            (own / "stop").touch()
        return trainer

    with (
        patch.object(worker.RunInputs, "read", lambda _: inputs),
        patch.object(worker.metrics, "refuse_missing_trackers"),
        patch.object(worker.metrics, "import_dashboards"),
        patch.object(worker.rendezvous, "join", lambda _: ranks.store),
        patch.object(worker, "start_process_group", lambda _: request("start")),
        patch.object(worker, "assemble", assemble),
        patch.object(worker, "save", lambda *_: request("save")),
        patch.object(worker, "end_distributed"),
    ):
        try:
            worker.train(own)
        except Stopped as stopped:
            done.append(str(stopped))
    return done


def looks(folder: Path, steps: int) -> int:
    """How often this rank asks for the file in so many steps, none of which is stopped."""
    signal, asked = StopSignal(folder), []
    with patch.object(Path, "exists", lambda path: bool(asked.append(path))):
        for _ in range(steps):
            assert signal(False) == [False, False]
    return len(asked)

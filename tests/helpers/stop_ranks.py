"""Programs of a rank in test_stop.py. A forked rank finds them by module name."""

from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import torch.distributed as dist

from ropewalk.conf.errors import Stopped
from ropewalk.train import worker


def train(folder: Path, moment: str) -> list[str]:
    """What a rank does when rank 1 alone sees a request to stop at `moment`; the last is its end.

    The real `worker.train`, with stand-ins for model and steps.
    """
    done: list[str] = []
    own = folder / str(dist.get_rank())
    own.mkdir()

    def request(now: str) -> None:
        done.append(now)
        if now == moment and dist.get_rank() == 1:
            (own / "stop").touch()

    settings = SimpleNamespace(
        deterministic=False, steps=3, launcher=SimpleNamespace(start_timeout_s=60)
    )
    inputs = SimpleNamespace(folder=own, config=SimpleNamespace(train=settings))
    state = SimpleNamespace(step=3 if moment == "nothing left" else 2)
    trainer = SimpleNamespace(state=state, train=lambda: request("train"))

    def assemble(_: object) -> SimpleNamespace:
        request("assemble")
        if state.step == 3 and dist.get_rank() == 1:
            (own / "stop").touch()
        return trainer

    with (
        patch.object(worker.RunInputs, "read", lambda _: inputs),
        patch.object(worker.metrics, "refuse_missing_tensorboard"),
        patch.object(worker, "start_distributed", lambda _: request("start")),
        patch.object(worker, "assemble", assemble),
        patch.object(worker, "save", lambda *_: request("save")),
        patch.object(worker, "end_distributed"),
    ):
        try:
            worker.train(own)
        except Stopped as stopped:
            done.append(str(stopped))
    return done

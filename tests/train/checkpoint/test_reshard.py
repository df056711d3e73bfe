"""Elastic resume: other ranks, another sp_size, another ZeRO stage read the same next batch and go on with the same losses.

What a load leaves in weights and optimizer is held, bit for bit, against what DeepSpeed itself loads where the checkpoint was written.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import checkpoint_runs
import numpy as np
import pytest
import ranks
import torch
from checkpoint_runs import RunSpec

from ropewalk.conf.schema import Config
from ropewalk.launch.config.compose import compose
from ropewalk.train.checkpoint import reshard

Place = tuple[int, int, int]  # ranks, sp_size, ZeRO stage

CHAINS: list[tuple[str, list[Place]]] = [
    ("fp32", [(4, 2, 3), (2, 1, 1), (1, 1, 0)]),
    ("fp32", [(1, 1, 1), (2, 2, 3), (4, 1, 2)]),
    ("fp32", [(4, 1, 1), (2, 1, 2), (1, 1, 3)]),
    ("fp32", [(2, 1, 0), (2, 1, 3), (2, 2, 0)]),
    ("bf16", [(2, 2, 3), (1, 1, 1), (2, 1, 2)]),
    ("bf16", [(4, 2, 2), (2, 2, 3), (1, 1, 2)]),
]
NOT_SLOW = (0,)


def settings(place: Place, precision: str) -> Config:
    small = [
        "data.seq_len=64",
        "train.global_batch_tokens=256",
        "train.micro_batch_size=1",
        "train.metrics.wandb=off",
    ]
    steps = [
        "train.steps=6",
        "train.checkpoint.interval_steps=0",
        "train.optimizer.lr=1e-2",
        "train.schedule.warmup_steps=2",
    ]
    mesh = [
        f"train.sp_size={place[1]}",
        f"train.zero_stage={place[2]}",
        f"train.precision={precision}",
    ]
    return compose(["recipe=demo", *small, *steps, *mesh])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return checkpoint_runs.make_data(tmp_path_factory.mktemp("data"))


def assert_bitwise(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """States of all parameters, each put together from its pieces; none has a hole (NaN)."""
    assert (
        found["states"].keys()
        == wanted["states"].keys()
        >= {"fp32", "exp_avg", "exp_avg_sq", "step"}
    )
    for key, tensors in wanted["states"].items():
        assert found["states"][key].keys() == tensors.keys()
        for name, tensor in tensors.items():
            assert np.isfinite(tensor).all()
            assert np.array_equal(found["states"][key][name], tensor), (key, name)
    assert all(
        np.array_equal(found["weights"][name], tensor) for name, tensor in wanted["weights"].items()
    )


@pytest.mark.parametrize(
    ("precision", "chain"),
    [
        pytest.param(*chain, marks=[] if n in NOT_SLOW else pytest.mark.slow)
        for n, chain in enumerate(CHAINS)
    ],
)
def test_a_run_goes_on_where_there_are_other_ranks(
    tmp_path: Path, data: Any, precision: str, chain: list[Place]
) -> None:
    """Two steps on each mesh, against six on the first."""
    first = settings(chain[0], precision)
    whole = RunSpec(tmp_path / "whole", first, data)
    whole.folder.mkdir()
    wanted = ranks.run(chain[0][0], checkpoint_runs.train, whole)[0]
    work, found = RunSpec(tmp_path, first, data, options={"until": 2}), {}
    for place, after in zip(chain, [*chain[1:], None], strict=True):
        work = replace(work, config=settings(place, precision))
        if after is not None:
            assert ranks.run(place[0], checkpoint_runs.train_until, work) == [75] * place[0]
            here = ranks.run(place[0], checkpoint_runs.load, work)[0]
            there = ranks.run(
                after[0], checkpoint_runs.load, replace(work, config=settings(after, precision))
            )[0]
            assert_bitwise(there, here)
        else:
            found = ranks.run(place[0], checkpoint_runs.train, work)[0]
    assert found["first_step"] == 4 and found["sequences"] == wanted["sequences"]
    assert found["losses"] == pytest.approx(
        wanted["losses"], rel=1e-5 if precision == "fp32" else 1e-2
    )


def test_a_checkpoint_that_lacks_a_piece_is_refused(tmp_path: Path, data: Any) -> None:
    """As if a rank's list had lost a parameter: nothing is loaded as zeros."""
    config = settings((2, 1, 1), "fp32")
    work = RunSpec(tmp_path, config, data, options={"until": 1})
    ranks.run(2, checkpoint_runs.train_until, work)
    with pytest.raises(
        AssertionError,
        match=r"ConfigError: the checkpoint lacks \d+ elements of model.model.layers.1",
    ):
        ranks.run(
            1, checkpoint_runs.load_incomplete, replace(work, config=settings((1, 1, 1), "fp32"))
        )
    # where one rank finds it, all say it, and none waits for another
    both = ranks.run(
        2,
        checkpoint_runs.load_incomplete_on_one_rank,
        replace(work, config=settings((2, 1, 2), "fp32")),
        timeout_s=60,
    )
    assert both[0] == both[1] and both[0].startswith("the checkpoint lacks ")


def test_steps_are_counted_as_the_optimizer_counts_them() -> None:
    """torch's fused AdamW wants a tensor where its weights are (here the meta device), DeepSpeed's for the host a plain number."""
    weights = [torch.nn.Parameter(torch.zeros(4, device=device)) for device in ("cpu", "meta")]
    for w in weights:
        found = reshard.step_count(3.0, torch.optim.AdamW([w], fused=w.device.type == "cpu"), w)
        assert (found.device, found.dtype) == (w.device, torch.float32)
    assert reshard.step_count(3.0, torch.optim.AdamW(weights[:1], fused=True), weights[0]) == 3.0
    plain = reshard.step_count(3.0, torch.optim.SGD(weights[:1]), weights[0])
    assert plain == 3 and isinstance(plain, int)

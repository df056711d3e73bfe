"""Resume with other ranks, another sp_size or ZeRO stage: the next batches and losses are equal.

Loaded weights and optimizer states equal, bit for bit, those that DeepSpeed itself loads on the
mesh that wrote the checkpoint.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import checkpoint_runs
import numpy as np
import pytest
import ranks
import run_faults
import torch
from checkpoint_runs import RunSpec

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.schema import Config
from ropewalk.train.checkpoint import reshard
from ropewalk.train.zero.flat_params import FlatTensor, Fragment

Mesh = tuple[int, int, int]  # ranks, sp_size, ZeRO stage

CHAINS: list[tuple[str, list[Mesh]]] = [
    ("fp32", [(4, 2, 3), (2, 1, 1), (1, 1, 0)]),
    ("fp32", [(1, 1, 1), (2, 2, 3), (4, 1, 2)]),
    ("fp32", [(4, 1, 1), (2, 1, 2), (1, 1, 3)]),
    ("fp32", [(2, 1, 0), (2, 1, 3), (2, 2, 0)]),
    ("bf16", [(2, 2, 3), (1, 1, 1), (2, 1, 2)]),
    ("bf16", [(4, 2, 2), (2, 2, 3), (1, 1, 2)]),
]
NOT_SLOW = (0,)


def settings(mesh: Mesh, precision: str) -> Config:
    _, sp_size, stage = mesh
    layout = [f"train.sp_size={sp_size}", f"train.zero_stage={stage}"]
    precision = f"train.precision={precision}"
    return checkpoint_runs.settings("train.checkpoint.interval_steps=0", precision, *layout)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return checkpoint_runs.make_data(tmp_path_factory.mktemp("data"))


def assert_equal_states(actual: dict[str, Any], expected: dict[str, Any]) -> None:
    """States of all parameters, assembled from their fragments; no element is missing (NaN)."""
    states, expected_states = actual["states"], expected["states"]
    assert states.keys() == expected_states.keys() >= {"fp32", "exp_avg", "exp_avg_sq", "step"}
    for key, tensors in expected_states.items():
        assert states[key].keys() == tensors.keys()
        for name, tensor in tensors.items():
            assert np.isfinite(tensor).all()
            assert np.array_equal(states[key][name], tensor), (key, name)
    for name, tensor in expected["weights"].items():
        assert np.array_equal(actual["weights"][name], tensor), name


@pytest.mark.parametrize(
    ("precision", "chain"),
    [
        pytest.param(*chain, marks=[] if n in NOT_SLOW else pytest.mark.slow)
        for n, chain in enumerate(CHAINS)
    ],
)
def test_a_run_continues_on_other_meshes(
    tmp_path: Path, data: Any, precision: str, chain: list[Mesh]
) -> None:
    continue_on_meshes(tmp_path, data, precision, chain, "cpu")


ON_GPUS = [
    (2, "fp32", [(2, 1, 1), (2, 2, 3), (1, 1, 0)]),
    (2, "bf16", [(2, 2, 3), (1, 1, 1), (2, 1, 2)]),
    (8, "bf16", [(8, 2, 3), (4, 1, 2), (8, 4, 3)]),
]


@pytest.mark.parametrize(
    ("precision", "chain"),
    [pytest.param(*case, marks=pytest.mark.gpu(count=count)) for count, *case in ON_GPUS],
)
def test_a_run_continues_on_other_meshes_of_gpus(
    tmp_path: Path, data: Any, precision: str, chain: list[Mesh]
) -> None:
    continue_on_meshes(tmp_path, data, precision, chain, "cuda")


def continue_on_meshes(
    tmp_path: Path, data: Any, precision: str, chain: list[Mesh], device: str
) -> None:
    """Two steps on each mesh, against six on the first."""
    start = partial(ranks.run, device=device)
    undisturbed = RunSpec(tmp_path / "undisturbed", settings(chain[0], precision), data)
    undisturbed.folder.mkdir()
    expected = start(chain[0][0], checkpoint_runs.train, undisturbed)[0]
    runs = [
        RunSpec(tmp_path, settings(mesh, precision), data, options={"until": 2}) for mesh in chain
    ]
    for spec, mesh, next_spec, next_mesh in zip(runs, chain, runs[1:], chain[1:], strict=False):
        assert start(mesh[0], checkpoint_runs.train_until, spec) == [75] * mesh[0]
        loaded = start(mesh[0], checkpoint_runs.load, spec)[0]
        resharded = start(next_mesh[0], checkpoint_runs.load, next_spec)[0]
        assert_equal_states(resharded, loaded)
    result = start(chain[-1][0], checkpoint_runs.train, runs[-1])[0]
    assert result["first_step"] == 4 and result["sequences"] == expected["sequences"]
    tolerance = (1e-5 if device == "cpu" else 1e-4) if precision == "fp32" else 1e-2
    assert result["losses"] == pytest.approx(expected["losses"], rel=tolerance)


def test_a_checkpoint_that_lacks_a_parameter_is_refused(tmp_path: Path, data: Any) -> None:
    """No missing element is loaded as zero."""
    spec = RunSpec(tmp_path, settings((2, 1, 1), "fp32"), data, options={"until": 1})
    ranks.run(2, checkpoint_runs.train_until, spec)
    one_rank = replace(spec, config=settings((1, 1, 1), "fp32"))
    message = r"ConfigError: the checkpoint lacks \d+ elements of model.model.layers.1"
    with pytest.raises(AssertionError, match=message):
        ranks.run(1, run_faults.load_incomplete, one_rank)
    # if one rank finds it, all raise it, and no rank waits for another
    other_stage = replace(spec, config=settings((2, 1, 2), "fp32"))
    first, second = ranks.run(2, run_faults.load_incomplete_on_one_rank, other_stage)
    assert first == second and first.startswith("the checkpoint lacks ")


def test_step_counts_have_the_form_of_the_optimizer() -> None:
    """torch's fused AdamW needs a tensor on its weights' device, DeepSpeed's CPU AdamW a number."""
    weights = [torch.nn.Parameter(torch.zeros(4, device=device)) for device in ("cpu", "meta")]
    for w in weights:
        count = reshard.step_count(3.0, torch.optim.AdamW([w], fused=w.device.type == "cpu"), w)
        assert isinstance(count, torch.Tensor)
        assert (count.device, count.dtype) == (w.device, torch.float32)
    assert reshard.step_count(3.0, torch.optim.AdamW(weights[:1], fused=True), weights[0]) == 3.0
    count = reshard.step_count(3.0, torch.optim.SGD(weights[:1]), weights[0])
    assert count == 3 and isinstance(count, int)


def test_a_flat_tensor_is_filled_from_fragments_cut_elsewhere() -> None:
    """Elements 3 to 9 of a parameter, saved as 0 to 4 and 4 to 10; the rest is padding."""
    weight = np.arange(10, dtype=np.float32) + 1
    saved = []
    for start, end, offset in ((0, 4, 1), (4, 10, 0)):
        padded = torch.from_numpy(np.pad(weight[start:end], (offset, 2)))
        tensors = {reshard.WEIGHT: padded, "exp_avg": 2 * padded, "step": 7.0}
        saved.append(reshard.SavedFragment(Fragment("w", start, end - start, offset), tensors))
    state: dict[str, Any] = {"step": 1.0}
    flat = FlatTensor(torch.zeros(9), [Fragment("w", 3, 6, 2)])
    reshard._fill(flat, state, {"w": saved})
    expected = np.pad(weight[3:9], (2, 1))
    np.testing.assert_array_equal(flat.tensor.numpy(), expected)
    np.testing.assert_array_equal(state["exp_avg"].numpy(), 2 * expected)
    assert state["step"] == 7.0 and state.keys() == {"exp_avg", "step"}
    with pytest.raises(ConfigError, match="the checkpoint lacks 5 elements of w"):
        reshard._fill(flat, {}, {"w": saved[:1]})


def cut(world_size: int, elements: int, names: list[str]) -> dict[int, list[Fragment]]:
    """As ZeRO 3 cuts each parameter into equal parts."""
    width = elements // world_size
    return {
        rank: [Fragment(name, rank * width, width, n * width) for n, name in enumerate(names)]
        for rank in range(world_size)
    }


@pytest.mark.parametrize(
    ("before", "after", "files"),
    [(512, 64, 8), (64, 512, 1), (8, 512, 1), (512, 8, 64), (512, 512, 1)],
)
def test_a_rank_needs_the_files_of_its_own_elements_only(
    before: int, after: int, files: int
) -> None:
    """By hand: 512 parts for 64 ranks are 8 for each; every rank of 64 opened 512."""
    names = [f"layer.{n}" for n in range(3)]
    saved, live = cut(before, 4096, names), cut(after, 4096, names)
    needed = [reshard.needed_ranks(live[rank], saved) for rank in range(after)]
    assert {len(ranks_) for ranks_ in needed} == {files}
    assert needed[after - 1][-1] == before - 1
    assert sorted({n for ranks_ in needed for n in ranks_}) == list(range(before))


def test_padding_and_empty_fragments_need_no_file() -> None:
    saved = {0: [Fragment("w", 0, 8, 0)], 1: [Fragment("w", 8, 0, 0)], 2: [Fragment("v", 0, 8, 0)]}
    assert reshard.needed_ranks([Fragment("w", 0, 20, 0)], saved) == [0]
    assert reshard.needed_ranks([Fragment("w", 4, 0, 0)], saved) == []


def test_two_ranks_of_four_open_two_files_each(tmp_path: Path, data: Any) -> None:
    """Of the checkpoint's data, and each list once over all ranks."""
    spec = RunSpec(tmp_path, settings((4, 1, 3), "fp32"), data, options={"until": 1})
    ranks.run(4, checkpoint_runs.train_until, spec)
    two = replace(spec, config=settings((2, 1, 3), "fp32"))
    opened = ranks.run(2, run_faults.opened_files, two)
    assert [sorted(files) for files in opened] == [
        ["rank-0.json", "rank-2.json", "zero_pp_rank_0_mp_rank_00_optim_states.pt",
         "zero_pp_rank_1_mp_rank_00_optim_states.pt"],
        ["rank-1.json", "rank-3.json", "zero_pp_rank_2_mp_rank_00_optim_states.pt",
         "zero_pp_rank_3_mp_rank_00_optim_states.pt"],
    ]  # fmt: skip

"""What is moved, compiled or held in fewer bits: no number changes that should not. Tiles and offload at each stage: test_parity.py."""

from pathlib import Path
from typing import Any

import memory_runs
import numpy as np
import pytest
import ranks
import torch

Found = dict[str, Any]


def apart(one: Found, other: Found, what: str) -> float:
    """Largest relative difference of a tensor, by norms."""
    assert set(one[what]) == set(other[what])
    pairs = [(one[what][name].astype(np.float64), other[what][name]) for name in one[what]]
    return max(float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in pairs)


def same(one: Found, other: Found) -> None:
    """Gradients of equal weights; what follows them has been through an optimizer that divides by their size."""
    np.testing.assert_allclose(one["losses"], other["losses"], rtol=1e-6)
    # a fused sum is rounded in another order: some 1e-6 of a norm in fp32
    assert apart(one, other, "gradients") < 3e-6
    assert apart(one, other, "weights") < 1e-5


def test_offloaded_weights_train_as_those_that_stay() -> None:
    cases = [
        {"zero_stage": 3},
        {"zero_stage": 3, "memory__offload_optimizer": True, "memory__offload_params": True},
    ]
    without, offloaded = ranks.run(2, memory_runs.train_each, cases)[0]
    same(offloaded, without)


def test_offloaded_activations_change_no_bit() -> None:
    cases = [
        {"zero_stage": stage, "memory__offload_activations": on}
        for stage in (1, 3)
        for on in (False, True)
    ]
    found = ranks.run(1, memory_runs.train_each, cases, 2)[0]
    for without, offloaded in zip(found[::2], found[1::2], strict=True):
        assert offloaded["losses"] == without["losses"]
        for what in ("gradients", "weights"):
            assert apart(offloaded, without, what) == 0


def test_compiled_layers_train_as_plain_ones_and_no_border_makes_a_graph() -> None:
    both = [{"zero_stage": 1, "memory__compile": on} for on in (False, True)]
    no_checkpoints = [{**case, "memory__activation_checkpointing": False} for case in both]
    (found, counted) = ranks.run(1, memory_runs.train_compiled, [*both, *no_checkpoints])[0]
    same(found[1], found[0])
    same(found[3], found[2])
    # a norm and an MLP, whatever documents the rows have; nothing was left out of them
    assert counted == {"graphs": 2, "breaks": 0}


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_masters_in_fp32_move_where_bf16_weights_cannot(stage: int) -> None:
    found = ranks.run(1, memory_runs.train_slowly, stage)[0]
    assert found["dtypes"] == (
        {"torch.bfloat16"},
        {"torch.float32"},
    )  # the weights; the rotary table
    large = [name for name, w in found["before"].items() if w.ndim == 2]
    moved = [np.mean(found["masters"][n] != found["before"][n]) for n in large]
    stuck = [np.mean(found["after"][n] == found["before"][n]) for n in large]
    assert min(moved) > 0.9 and min(stuck) > 0.9
    for name, exact in found["masters"].items():
        rounded = torch.from_numpy(exact).bfloat16().float().numpy()
        assert np.array_equal(rounded, found["after"][name])


def test_gradients_in_bf16_are_added_in_fp32_over_micro_steps_and_ranks() -> None:
    """Sums in bf16 would be wrong in the third digit after 32 of them."""
    cases: list[dict[str, Any]] = [
        {"zero_stage": stage, "memory__offload_optimizer": on}
        for stage in (1, 2, 3)
        for on in (False, True)
    ]
    wanted = ranks.run(1, memory_runs.gradient_sums, 32)[0]
    for world in (1, 2):
        for case, found in zip(
            cases, ranks.run(world, memory_runs.first_gradients, cases, 32 // world)[0], strict=True
        ):
            for name, exact in wanted.items():
                off = np.abs(found[name] - exact).max() / np.abs(exact).max()
                assert off < 1e-5, (world, case, name, off)


def test_moments_of_eight_bits_resume_to_the_bit(tmp_path: Path) -> None:
    pytest.importorskip(
        "bitsandbytes", reason="the optimizer's package is not installed (ropewalk[bnb])"
    )
    found = ranks.run(1, memory_runs.resume_eight_bit, str(tmp_path))[0]
    assert "torch.uint8" in found["dtypes"]
    assert found["resumed"] == found["losses"][2:]
    assert found["losses"][3] < found["losses"][0]

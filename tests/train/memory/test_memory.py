"""Offloading, compilation and fewer bits: the training stays the same.

Tiles and offloading at each stage: test_parity.py.
"""

from pathlib import Path
from typing import Any

import memory_runs
import numpy as np
import pytest
import ranks
import torch

Training = dict[str, Any]
"""Losses, gradients and weights of a short training."""


def difference(actual: Training, expected: Training, key: str) -> float:
    """Largest relative difference of a tensor, by norms."""
    assert set(actual[key]) == set(expected[key])
    pairs = [(tensor.astype(np.float64), expected[key][n]) for n, tensor in actual[key].items()]
    return max(float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in pairs)


def assert_same(actual: Training, expected: Training) -> None:
    """Weights differ more than gradients, because the optimizer divides by the gradients' size."""
    np.testing.assert_allclose(actual["losses"], expected["losses"], rtol=1e-6)
    # a fused sum is rounded in another order: about 1e-6 of a norm in fp32
    assert difference(actual, expected, "gradients") < 3e-6
    assert difference(actual, expected, "weights") < 1e-5


def test_offloaded_weights_train_the_same() -> None:
    cases = [
        {"zero_stage": 3},
        {"zero_stage": 3, "memory__offload_optimizer": True, "memory__offload_params": True},
    ]
    without, offloaded = ranks.run(2, memory_runs.train_each, cases)[0]
    assert_same(offloaded, without)


def test_offloaded_activations_change_no_bit() -> None:
    cases = [
        {"zero_stage": stage, "memory__offload_activations": on}
        for stage in (1, 3)
        for on in (False, True)
    ]
    results = ranks.run(1, memory_runs.train_each, cases, 2)[0]
    for without, offloaded in zip(results[::2], results[1::2], strict=True):
        assert offloaded["losses"] == without["losses"]
        for key in ("gradients", "weights"):
            assert difference(offloaded, without, key) == 0


def test_compiled_layers_train_the_same_with_one_graph_for_all_borders() -> None:
    cases = [{"zero_stage": 1, "memory__compile": on} for on in (False, True)]
    no_checkpoints = [{**case, "memory__activation_checkpointing": False} for case in cases]
    (results, counts) = ranks.run(1, memory_runs.train_compiled, [*cases, *no_checkpoints])[0]
    assert_same(results[1], results[0])
    assert_same(results[3], results[2])
    # one graph for a norm and one for an MLP, whatever documents the rows have
    assert counts == {"graphs": 2, "breaks": 0}


def test_compiled_tiles_train_the_same() -> None:
    """Tiles of 20 tokens of 48: a last one of another length has no graph of its own each time."""
    tiled = {"zero_stage": 2, "memory__tile_mlp_tokens": 20}
    cases = [{"zero_stage": 2}, {**tiled, "memory__compile": True}]
    (expected, actual), counts = ranks.run(1, memory_runs.train_compiled, cases)[0]
    assert_same(actual, expected)
    # one of a norm; of a tile those of both lengths, without gradients and with them
    assert counts["graphs"] <= 1 + 2 * 2 and counts["breaks"] == 0


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_fp32_masters_change_where_bf16_weights_cannot(stage: int) -> None:
    result = ranks.run(1, memory_runs.train_slowly, stage)[0]
    # of the weights and of the rotary table
    assert result["dtypes"] == ({"torch.bfloat16"}, {"torch.float32"})
    masters, before, after = (result[key] for key in ("masters", "before", "after"))
    matrices = [name for name, weight in before.items() if weight.ndim == 2]
    assert min(np.mean(masters[name] != before[name]) for name in matrices) > 0.9
    assert min(np.mean(after[name] == before[name]) for name in matrices) > 0.9
    for name, exact in masters.items():
        rounded = torch.from_numpy(exact).bfloat16().float().numpy()
        assert np.array_equal(rounded, after[name])


def test_bf16_gradients_are_summed_in_fp32() -> None:
    """Over micro-steps and ranks; in bf16, 32 terms would be wrong in the third digit."""
    cases: list[dict[str, Any]] = [
        {"zero_stage": stage, "memory__offload_optimizer": on}
        for stage in (1, 2, 3)
        for on in (False, True)
    ]
    expected = ranks.run(1, memory_runs.gradient_sums, 32)[0]
    for world in (1, 2):
        results = ranks.run(world, memory_runs.first_gradients, cases, 32 // world)[0]
        for case, gradients in zip(cases, results, strict=True):
            for name, exact in expected.items():
                error = np.abs(gradients[name] - exact).max() / np.abs(exact).max()
                assert error < 1e-5, (world, case, name, error)


def test_eight_bit_moments_resume_bit_for_bit(tmp_path: Path) -> None:
    pytest.importorskip(
        "bitsandbytes", reason="the optimizer's package is not installed (ropewalk[bnb])"
    )
    result = ranks.run(1, memory_runs.resume_eight_bit, str(tmp_path))[0]
    assert "torch.uint8" in result["dtypes"]
    assert result["resumed"] == result["losses"][2:]
    assert result["losses"][3] < result["losses"][0]

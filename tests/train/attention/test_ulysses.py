"""The exchange of sequence for heads around a kernel, against the kernel alone in one process."""

from typing import Any

import numpy as np
import pytest
import ranks
import ulysses_kernel_ranks

from ropewalk.conf.errors import ConfigError
from ropewalk.train.attention import ulysses

CASES: dict[int, list[tuple[int, int, dict[str, Any]]]] = {
    # heads, key/value heads, what else a layer may ask
    2: [(8, 2, {}), (8, 1, {"window": 7}), (4, 4, {"sinks": True, "window": 6}), (6, 3, {"s2": 8})],
    # 4 key/value heads for 3 ranks, 2 for 4: repeated until they divide
    3: [(12, 4, {}), (9, 3, {"s2": 8}), (3, 1, {"sinks": True})],
    4: [(8, 2, {"window": 9}), (8, 4, {"s2": 8}), (4, 1, {})],
}


@pytest.mark.parametrize("world", CASES)
def test_output_and_gradients_are_those_of_the_kernel_alone(world: int) -> None:
    results = ranks.run(world, ulysses_kernel_ranks.attend_slices, CASES[world])
    for number, (heads, shared, options) in enumerate(CASES[world]):
        expected = ulysses_kernel_ranks.attend(
            ulysses_kernel_ranks.kernel_of(options),
            ulysses_kernel_ranks.random_inputs(heads, shared),
            options,
        )
        parts = [rank[number] for rank in results]
        np.testing.assert_allclose(
            np.concatenate([p["out"] for p in parts], axis=1), expected["out"], atol=1e-5
        )
        for index, gradient in enumerate(expected["grads"]):
            rank_gradients = [p["grads"][index] for p in parts]
            # every rank holds all sinks, and their gradients are summed as a parameter's are
            actual = (
                np.concatenate(rank_gradients, axis=2)
                if gradient.dim() == 4
                else sum(rank_gradients)
            )
            np.testing.assert_allclose(
                actual, gradient, atol=2e-5, err_msg=f"{heads} {shared} {options} {index}"
            )


def test_a_layer_of_other_heads_than_the_configs_is_refused() -> None:
    heads, sizes, split = ranks.run(2, ulysses_kernel_ranks.errors)[1]
    assert "each layer must have 8 query and 8 key/value heads of one size" in heads
    assert "set train.sp_size=1" in heads
    assert "value (1, 8, 4, 5)" in sizes
    assert split == (
        "train.sp_size is 2; each layer must have 9 query and 9 key/value heads, as the model's "
        "config says; one has 8 and 8; set train.sp_size=1"
    )


def test_shifted_groups_of_heads_that_ranks_do_not_divide_are_refused_without_ranks() -> None:
    config = ulysses_kernel_ranks.config(12, 4)
    for size in (1, 2, 3, 4, 6, 12):
        ulysses.refuse_s2_groups(config, size, 8)
    ulysses.refuse_s2_groups(config, 8, None)
    with pytest.raises(ConfigError, match=r"s2_group is 8; .* to one of 1, 2, 3, 4, 6, 12$"):
        ulysses.refuse_s2_groups(config, 8, 8)


def test_the_log_says_how_ranks_share_a_sequence() -> None:
    """28 heads are Qwen2.5-7B's, 9 SmolLM2-135M's."""
    lines = {n: ulysses.describe(ulysses_kernel_ranks.config(n, 1), 8) for n in (32, 28, 9)}
    assert lines == {
        32: "32 heads over 8 ranks",
        28: "28 heads over 4 ranks x queries over 2, to each the keys that they see",
        9: "queries over 8, to each the keys that they see",
    }

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


def test_heads_that_the_ranks_do_not_divide_are_refused_with_sizes_that_work() -> None:
    heads, layer, sizes = ranks.run(2, ulysses_kernel_ranks.errors)[1]
    assert heads == (
        "train.sp_size is 2; it must divide the 9 attention heads of llama; "
        "set one of 1, 3, 9 (with 2 rank(s): 1)"
    )
    assert "each layer must have 8 query and 8 key/value heads" in layer
    assert "set train.sp_size=1" in layer
    assert "value (1, 8, 4, 5)" in sizes


def test_a_size_can_be_checked_without_ranks() -> None:
    config = ulysses_kernel_ranks.config(12, 4)
    for size in (1, 2, 3, 4, 6, 12):
        ulysses.refuse_unfit_heads(config, size)
    with pytest.raises(ConfigError, match="set one of 1, 2, 3, 4, 6, 12$"):
        ulysses.refuse_unfit_heads(config, 8)

"""The exchange where ranks do not divide the heads, against the kernel alone in one process.

In double precision, where a wrong sum cannot hide behind rounding.
"""

from typing import Any

import numpy as np
import pytest
import ranks
import torch
import ulysses_kernel_ranks

LENGTHS = {
    "one": [48],
    "long first": [33, 1, 2, 5, 7],
    "long last": [3, 1, 0, 4, 40],
    "short": [2, 3, 1, 5, 4, 2, 6, 3, 2, 2, 1, 3, 4, 2, 3, 5],
}


def case(heads: int, shared: int, lengths: str, **options: Any) -> tuple[int, int, dict[str, Any]]:
    ends = torch.tensor([0, *np.cumsum(LENGTHS[lengths]).tolist()], dtype=torch.int32)
    return heads, shared, {"dtype": torch.float64, "ends": ends, **options}


def cases(*heads: tuple[int, int]) -> list[tuple[int, int, dict[str, Any]]]:
    return [
        case(*pair, lengths, **options)
        for pair in heads
        for lengths in LENGTHS
        for options in ({}, {"window": 7}, {"sinks": True})
    ]


KEPT = {
    2: [case(1, 1, "one"), case(3, 1, "long first", window=7), case(9, 3, "short", sinks=True)],
    # two head groups of three of six heads, whose keys they share unevenly
    4: [case(6, 3, "long last"), case(1, 1, "long first")],
}
HEADS = [(1, 1), (2, 1), (3, 1), (3, 3), (7, 1), (7, 7), (9, 3), (9, 9)]
EVERY = {
    2: cases(*(pair for pair in HEADS if pair[0] % 2)),
    4: cases(*HEADS, (6, 3), (6, 2)),
    # as 28 heads with 4 keys: 4 head groups, each with a key of its own
    8: cases(*HEADS, (12, 3), (28, 4), (12, 12)),
}


def compare(world: int, wanted: list[tuple[int, int, dict[str, Any]]]) -> None:
    results = ranks.run(world, ulysses_kernel_ranks.attend_slices, wanted)
    for number, (heads, shared, options) in enumerate(wanted):
        expected = ulysses_kernel_ranks.attend(
            ulysses_kernel_ranks.kernel_of(options),
            ulysses_kernel_ranks.random_inputs(heads, shared, options["dtype"]),
            options,
        )
        parts = [rank[number] for rank in results]
        message = f"{world} ranks, {heads} heads, {shared} keys, {options}"
        output = np.concatenate([part["out"] for part in parts], axis=1)
        np.testing.assert_allclose(output, expected["out"], atol=1e-12, err_msg=message)
        for index, gradient in enumerate(expected["grads"]):
            slices = [part["grads"][index] for part in parts]
            # every rank holds all sinks, and their gradients are summed as a parameter's are
            actual = np.concatenate(slices, axis=2) if gradient.dim() == 4 else sum(slices)
            np.testing.assert_allclose(actual, gradient, atol=1e-12, err_msg=f"{message} {index}")


@pytest.mark.parametrize("world", KEPT)
def test_output_and_gradients_are_those_of_the_kernel_alone(world: int) -> None:
    compare(world, KEPT[world])


@pytest.mark.slow
@pytest.mark.parametrize("world", EVERY)
def test_every_number_of_heads_at_every_size(world: int) -> None:
    compare(world, EVERY[world])

"""Calls of kernels by runs of documents, against eager attention under one dense mask."""

import sys
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from oracle import eager, gradients, heads, visible
from stand_ins import Calls
from torch.utils._python_dispatch import TorchDispatchMode

from ropewalk.train import attention
from ropewalk.train.attention import document_runs
from ropewalk.train.attention.kernels import GPU_KERNELS

SHORT, LONG = 31, 100_000
LENGTHS = [3, 1, 2, 40, 30, 2, 2, 2, 5]
"""Two long documents, a neighbour of the other, among short ones."""
ENDS = (0, *np.cumsum(LENGTHS).tolist())


@pytest.fixture(autouse=True)
def no_cache() -> Any:
    document_runs.document_runs.cache_clear()
    yield
    document_runs.document_runs.cache_clear()


@pytest.fixture()
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Stand-ins, and blocks so small that documents of 40 tokens are long ones."""
    monkeypatch.setattr(document_runs, "BLOCK", 4)
    monkeypatch.setattr(document_runs, "CALL_COST", 16)
    recorder = Calls()
    for name, module in recorder.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    return recorder


def ends_of(lengths: list[int]) -> tuple[int, ...]:
    return (0, *np.cumsum(lengths).tolist())


def blocks_launched(ends: tuple[int, ...], runs: Any, num_heads: int) -> int:
    """As the kernel's launch: for each document as many blocks as the longest one of its call."""
    lengths = [b - a for a, b in pairwise(ends)]
    return sum(len(r) * num_heads * max(-(-lengths[n] // 128) for n in r) for r in runs)


def test_one_long_document_among_many_short_ones_is_a_call_of_its_own() -> None:
    ends = ends_of([SHORT] * 600 + [LONG] + [SHORT] * 400)
    runs = document_runs.document_runs(ends, 4)
    assert runs == (range(0, 600), range(600, 601), range(601, 1001))
    assert blocks_launched(ends, (range(1001),), 4) == 3_131_128
    assert blocks_launched(ends, runs, 4) == 4 * (1000 + 782)


@pytest.mark.parametrize(
    ("lengths", "runs"),
    [
        ([SHORT] * 1000 + [LONG], (range(0, 1000), range(1000, 1001))),
        ([LONG], (range(0, 1),)),
        ([4096] * 32, (range(0, 32),)),
        ([8192, 300, 16384, 2000, 700], (range(0, 5),)),
    ],
    ids=["at the end", "alone", "equal", "few"],
)
def test_other_documents_share_a_call(lengths: list[int], runs: Any) -> None:
    assert document_runs.document_runs(ends_of(lengths), 32 if len(lengths) < 99 else 4) == runs


@pytest.mark.parametrize("seed", range(20))
def test_runs_hold_every_document_once_and_never_cost_more_than_one_call(seed: int) -> None:
    draw = np.random.default_rng(seed)
    lengths = np.minimum(draw.lognormal(4, 2.5, size=draw.integers(1, 3000)), 200_000).astype(int)
    ends = ends_of((lengths + 1).tolist())
    runs = document_runs.document_runs(ends, 8)
    assert [n for run in runs for n in run] == list(range(len(lengths)))
    cost, cost_of_one = (
        blocks_launched(ends, r, 8) + document_runs.CALL_COST * len(r)
        for r in (runs, [range(len(lengths))])
    )
    assert cost <= cost_of_one and (cost < cost_of_one) == (len(runs) > 1)


def test_a_call_has_at_most_as_many_documents_as_cudas_grid() -> None:
    """A grid's y and z are at most 65,535 (CUDA C++ Programming Guide, compute capabilities)."""
    runs = document_runs.document_runs(tuple(range(150_001)), 2)
    assert [len(run) for run in runs] == [65_535, 65_535, 18_930]


@pytest.mark.parametrize("most", [2, 65_535])
@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("name", GPU_KERNELS)
def test_forward_and_backward_equal_eager_attention(
    name: str, window: int | None, most: int, calls: Calls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(document_runs, "MAX_DOCUMENTS", most)
    inputs = heads(4, 2, 8, s=ENDS[-1], dtype=torch.bfloat16)
    borders = attention.document_borders(torch.tensor(ENDS, dtype=torch.int32))
    kernel = GPU_KERNELS[name].function
    output, _ = kernel(None, *inputs, None, scaling=0.3, sliding_window=window, **borders)
    # flash-attn 4 counts the blocks of each document
    expected_calls = [9] if name == "flash4" else ([3, 2, 4] if most > 2 else [2, 1, 2, 2, 2])
    assert [len(call.cu) - 1 for call in calls.recorded] == expected_calls
    expected = eager(*inputs, visible(ENDS, window), 0.3)
    torch.testing.assert_close(output.float(), expected, atol=1e-2, rtol=1e-2)
    for gradient, reference in zip(
        gradients(output, inputs), gradients(expected, inputs), strict=True
    ):
        torch.testing.assert_close(gradient, reference, atol=3e-2, rtol=3e-2)


def test_keys_before_the_queries_stay_with_them(calls: Calls) -> None:
    """A rank's part of a split sequence: here the last queries of each document."""
    lengths = [-(-n // 2) for n in LENGTHS]
    spans = [(end - n, end) for n, end in zip(lengths, ENDS[1:], strict=True)]
    inputs = heads(4, 2, 8, s=ENDS[-1], dtype=torch.bfloat16)
    query = torch.cat([inputs[0][:, :, a:b] for a, b in spans], dim=2)
    queries, keys = (
        attention.document_borders(torch.tensor(ends, dtype=torch.int32))
        for ends in (ends_of(lengths), ENDS)
    )
    output, _ = GPU_KERNELS["flash"].function(
        None, query, *inputs[1:], None, scaling=0.3, key_borders=keys, **queries
    )
    assert len(calls.recorded) == 3
    expected = eager(*inputs, visible(ENDS, None), 0.3)
    expected = torch.cat([expected[:, a:b] for a, b in spans], dim=1)
    torch.testing.assert_close(output.float(), expected, atol=1e-2, rtol=1e-2)


def test_no_run_waits_for_the_device(calls: Calls) -> None:
    """Borders of a run are a slice and a difference on the device."""
    reads: list[str] = []

    class Reads(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None):  # type: ignore[no-untyped-def]
            if func.overloadpacket in (
                torch.ops.aten._local_scalar_dense,
                torch.ops.aten.nonzero,
                torch.ops.aten._to_copy,
            ):
                reads.append(str(func))
            return func(*args, **(kwargs or {}))

    borders = attention.document_borders(torch.tensor(ENDS, dtype=torch.int32))
    runs = document_runs.document_runs(ENDS, 4)
    with Reads():
        for run in runs:
            document_runs.borders_of_run(borders, run)
    assert len(runs) == 3 and not reads

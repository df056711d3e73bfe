"""adamw_8bit counts the elements of a tensor in 32 bits: what is too long is refused."""

import ctypes
import inspect

import optimizer_ranks
import pytest
import ranks
from train_settings import train_config

from ropewalk.conf.errors import ConfigError
from ropewalk.train.optim.optimizer import EIGHT_BIT_MAX_ELEMENTS, refuse_long_tensor
from ropewalk.train.zero.buffer_sizes import longest_stepped_tensor

# all parameters but the norms, as one group decays
LLAMA_8B, LLAMA_70B = 8_029_995_008, 70_552_387_584


def test_the_bound_is_where_the_kernels_count_wraps() -> None:
    assert ctypes.c_int32(EIGHT_BIT_MAX_ELEMENTS).value == EIGHT_BIT_MAX_ELEMENTS
    assert ctypes.c_int32(EIGHT_BIT_MAX_ELEMENTS + 1).value < 0
    assert ctypes.c_int32((1 << 32) + 1000).value == 1000  # all others would not be stepped


def test_bitsandbytes_counts_in_32_bits() -> None:
    ops = pytest.importorskip("bitsandbytes.backends.cuda.ops", reason="needs ropewalk[bnb]")
    assert "ct.c_int32(g.numel())" in inspect.getsource(ops)


@pytest.mark.parametrize(
    ("elements", "stage", "world", "least"),
    [
        (LLAMA_8B, 1, 1, 4),
        (LLAMA_8B, 2, 3, 4),
        (LLAMA_8B, 1, 4, None),
        (LLAMA_70B, 2, 32, 33),
        (LLAMA_70B, 2, 33, None),
        (LLAMA_70B, 3, 8, None),
        (LLAMA_8B, 0, 1, None),
    ],
)
def test_a_partition_that_wraps_is_refused_with_the_ranks_that_it_needs(
    elements: int, stage: int, world: int, least: int | None
) -> None:
    train = train_config(
        steps=1, optimizer__lr=1e-3, optimizer__name="adamw_8bit", zero_stage=stage
    )
    longest = longest_stepped_tensor(stage, [elements, 266_240], 128_256 * 8192, world)
    if least is None:
        refuse_long_tensor(train, longest, world)
        return
    with pytest.raises(ConfigError) as error:
        refuse_long_tensor(train, longest, world)
    assert f"ZeRO {stage} on {world} rank(s) makes one of {longest:,}" in str(error.value)
    assert f"start at least {least} ranks" in str(error.value)
    train.optimizer.name = "adamw"
    refuse_long_tensor(train, longest, world)


@pytest.mark.parametrize("stage", [0, 1, 2])
def test_the_engine_steps_tensors_of_this_length(stage: int) -> None:
    for actual, longest in ranks.run(3, optimizer_ranks.longest_tensors, {"zero_stage": stage}):
        assert actual == longest


def test_the_engine_is_not_built_for_a_tensor_that_is_too_long() -> None:
    message = r"adamw_8bit; it steps tensors of at most 100 elements, and ZeRO 1 on 2 rank\(s\)"
    with pytest.raises(AssertionError, match=message):
        ranks.run(2, optimizer_ranks.build_with_bound, 100)

"""Pinned blocks of exact size; launcher/test_environment.py has the setting's name in torch."""

import pytest

from ropewalk.train.memory.pinned_memory import pinned_bytes

MIB = 1 << 20


@pytest.mark.parametrize(
    ("hidden", "mib", "rounded_mib"), [(4096, 128, 128), (5120, 160, 256), (6144, 192, 256)]
)
def test_a_layer_s_input_takes_its_own_bytes(hidden: int, mib: int, rounded_mib: int) -> None:
    """16,384 tokens in bf16."""
    num_bytes = 16_384 * hidden * 2
    assert num_bytes == mib * MIB == pinned_bytes(num_bytes)
    assert pinned_bytes(num_bytes, exact_above=None) == rounded_mib * MIB


def test_small_blocks_are_rounded_as_by_default() -> None:
    for num_bytes in (1, 3, 4096, 5000, MIB):
        assert pinned_bytes(num_bytes) == pinned_bytes(num_bytes, exact_above=None)
    assert [pinned_bytes(n) for n in (1, 3, 5000)] == [1, 4, 8192]

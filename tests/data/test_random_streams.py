"""Streams of different purposes share no numbers; each is numpy's own Philox, advanced."""

from itertools import product

import numpy as np
import pytest

from ropewalk.data.random_streams import Purpose, generator


def test_no_two_draws_share_a_number() -> None:
    """The key (seed, 0) was once that of an epoch, of a synthetic document and of the bootstrap."""
    draws = product(Purpose, (0, 1, 2), (0, 1, 2))
    streams = [generator(*draw).bit_generator.random_raw(64).tolist() for draw in draws]
    numbers = [number for stream in streams for number in stream]
    assert len(set(numbers)) == len(numbers) == len(Purpose) * 9 * 64


@pytest.mark.parametrize("purpose", Purpose)
def test_a_stream_is_philox_advanced_to_its_purpose(purpose: Purpose) -> None:
    """`advance` counts in blocks: another way to the same position."""
    bits = np.random.Philox(key=[7, 3])
    bits.advance(int(purpose) << 192)
    expected = np.random.Generator(bits).integers(0, 1 << 62, 20)
    assert np.array_equal(generator(purpose, 7, 3).integers(0, 1 << 62, 20), expected)

"""What a trace writes down of host memory: blocks as torch's pinned allocator makes them."""

import torch

from ropewalk.train.trace.events import HOST
from ropewalk.train.trace.live_bytes import LiveBytes

MIB = 1 << 20


def test_host_memory_is_counted_in_pinned_blocks() -> None:
    """Powers of two up to the threshold that ropewalk sets, 1 MiB; above it as many as asked."""
    live = LiveBytes()
    tensors = [torch.empty(size, dtype=torch.uint8) for size in (600_000, MIB, 5 * MIB)]
    for tensor in (*tensors, tensors[0]):
        live.add_host(tensor)
    sizes = [event[2] for event in live.events]
    assert sizes == [MIB, MIB, 5 * MIB]
    assert {event[4] for event in live.events} == {HOST}

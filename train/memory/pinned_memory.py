"""Pinned host memory, of which copies to and from a device run beside the CPU.

torch's allocator rounds a pinned block up to a power of two: the input of a layer of 16,384 tokens
x 5,120 in bf16 takes 256 MiB for 160, and a 70B model's checkpoint buffers on 64 ranks twice their
bytes, held to the end of the run. Above a threshold it can be told not to.
"""

EXACT_ABOVE_MIB = 1
ALLOCATOR_SETTING = f"pinned_max_round_threshold_mb:{EXACT_ABOVE_MIB}"
"""For PYTORCH_ALLOC_CONF."""


def pinned_bytes(num_bytes: int, exact_above: int | None = EXACT_ABOVE_MIB << 20) -> int:
    """Bytes of a block for a tensor of `num_bytes`; `exact_above` None: torch's default.

    Source: c10's CachingHostAllocator, `PowerOf2Ceil`.
    """
    if exact_above is not None and num_bytes > exact_above:
        return num_bytes
    return 1 << (num_bytes - 1).bit_length()

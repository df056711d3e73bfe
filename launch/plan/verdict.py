"""Fits, does not fit, or too close to say."""

FITS, DOES_NOT_FIT, TOO_CLOSE = "fits", "does_not_fit", "too_close"
WORDS = {FITS: "fits", DOES_NOT_FIT: "does not fit", TOO_CLOSE: "too close to say"}
MARGIN = 0.10
"""Of what is reserved: published runs took up to that much more than a trace with the allocator
replayed; beside it are memory that another stream still reads, and a driver's own."""


def verdict(allocated: int, reserved: int, usable: int) -> str:
    """For bytes of tensors, bytes that the allocator in use holds, and what the device has left
    for them. Tensors alone that do not fit are a no, whatever the allocator does."""
    if allocated > usable:
        return DOES_NOT_FIT
    return FITS if reserved * (1 + MARGIN) <= usable else TOO_CLOSE


def worst(verdicts: list[str]) -> str:
    """Of several devices, hosts or phases."""
    return max(verdicts, key=[FITS, TOO_CLOSE, DOES_NOT_FIT].index)

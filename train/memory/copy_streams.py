"""A stream of copies between device and host, beside the stream that computes.

The order of the two is what makes a copy right: it reads what is computed, nothing overwrites what
it still reads, and nothing reads what it has not written. No tensor here is given to the allocator
with `record_stream`: it would be reusable when the copy is seen to be done at the time of an
allocation, on a host that runs up to a thousand launches ahead. Each tensor is allocated and freed
on the computing stream instead, and the stream waits for the copy before it is freed, so that how
much is held depends on the program alone.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

import torch


class CopyStream(Protocol):
    """What the copies need of a device."""

    pinned: bool
    """Whether host memory must be pinned, for copies that run beside the computation."""

    def copying(self) -> AbstractContextManager[None]:
        """Copies inside are queued after all that the computing stream has been given so far."""

    def record(self) -> object:
        """An event: all copies that are queued so far."""

    def computing_waits(self, event: object) -> None:
        """What is given to the computing stream from now on runs after the event."""


class CudaCopyStream:
    """A side stream."""

    pinned = True

    def __init__(self) -> None:
        self.stream = torch.cuda.Stream()

    @contextmanager
    def copying(self) -> Iterator[None]:
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            yield

    def record(self) -> torch.cuda.Event:
        return self.stream.record_event()

    def computing_waits(self, event: object) -> None:
        assert isinstance(event, torch.cuda.Event)
        torch.cuda.current_stream().wait_event(event)


class HostCopies:
    """Without a device a copy is done when its call returns."""

    pinned = False

    @contextmanager
    def copying(self) -> Iterator[None]:
        yield

    def record(self) -> None:
        return None

    def computing_waits(self, event: object) -> None:
        pass


def copy_stream() -> CopyStream:
    """This machine's."""
    return CudaCopyStream() if torch.cuda.is_available() else HostCopies()

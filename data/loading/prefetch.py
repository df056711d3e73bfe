"""A background thread that prepares items ahead of their use."""

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")
END: Any = object()


def prefetch(items: Iterator[T], depth: int) -> Generator[T, None, None]:
    """The same items in the same order, up to `depth` of them prepared ahead; 0: none.

    An exception raised by an item is raised in its turn. Closing the generator ends the thread.
    """
    if depth == 0:
        yield from items
        return
    pool = ThreadPoolExecutor(1, "read ahead")
    try:
        pending = deque(pool.submit(next, items, END) for _ in range(depth))
        while (item := pending.popleft().result()) is not END:
            pending.append(pool.submit(next, items, END))
            yield item
    finally:
        pool.shutdown(cancel_futures=True)

"""Reading ahead: a background thread makes items before they are asked for, so that who asks does not wait."""

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")
END: Any = object()


def prefetch(items: Iterator[T], depth: int) -> Generator[T, None, None]:
    """The same items in the same order, up to `depth` of them made ahead; 0: each when it is asked for.

    What making an item raises is raised here in its turn. Closing the generator ends the thread.
    """
    if depth == 0:
        yield from items
        return
    pool = ThreadPoolExecutor(1, "read ahead")
    try:
        made = deque(pool.submit(next, items, END) for _ in range(depth))
        while (item := made.popleft().result()) is not END:
            made.append(pool.submit(next, items, END))
            yield item
    finally:
        pool.shutdown(cancel_futures=True)

"""Documents at the limit of `data.overlong`, boundary tokens included."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ropewalk.conf.errors import DataError
from ropewalk.data.mixing import overlong
from ropewalk.data.tokens.store import BoundaryTokens

STORE: Any = SimpleNamespace(
    length=np.array([4, 5, 3]), heldout=np.zeros(3, dtype=bool), ids=["a", "b", "c"]
)


@pytest.mark.parametrize(
    ("limit", "end", "usable"),
    [
        (5, None, [True, True, True]),
        (4, None, [True, False, True]),
        (5, 9, [True, False, True]),
        (6, 9, [True, True, True]),
    ],
)
def test_only_documents_longer_than_the_limit_are_dropped(
    limit: int, end: int | None, usable: list[bool]
) -> None:
    tokens = BoundaryTokens(None, end)
    result = overlong.candidates("books", STORE, limit, "drop", tokens)
    assert result.usable.tolist() == usable
    dropped = [n for n, use in zip([4, 5, 3], usable, strict=True) if not use]
    assert (result.dropped, result.dropped_documents) == (sum(dropped), len(dropped))
    truncated = overlong.candidates("books", STORE, limit, "truncate", tokens)
    assert truncated.usable.all()
    assert (truncated.dropped, truncated.dropped_documents) == (0, 0)
    assert (truncated.outside_length, truncated.outside_length_documents) == (0, 0)
    with_end = [n + (end is not None) for n in (4, 5, 3)]
    assert truncated.lengths.tolist() == [min(n, limit) for n in with_end]


def test_a_source_that_fits_is_no_error() -> None:
    tokens = BoundaryTokens()
    assert overlong.candidates("books", STORE, 5, "error", tokens).usable.all()
    with pytest.raises(DataError):
        overlong.candidates("books", STORE, 4, "error", tokens)

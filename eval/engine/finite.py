"""Logits that are NaN or infinite are refused: there is no answer to measure."""

from collections.abc import Callable, Mapping

from ropewalk.conf.errors import DataError
from ropewalk.eval.requests import Request, digest

Check = Callable[[Request, bool], None]
"""Raises where the logits of a request are not finite."""


class NotFinite(DataError):
    """A model's logits are NaN or infinite."""


def refuse_not_finite(
    label: str, names: Mapping[str, str], request: Request, is_finite: bool
) -> None:
    """`label`: of the model; `names`: of requests by their digests. Raises: NotFinite."""
    if not is_finite:
        name = names.get(digest(request), f"request {digest(request)}")
        raise NotFinite(
            f"the logits of {label} are NaN or infinite in {name}; there is no answer to measure; "
            "set eval.precision=fp32 or correct the model"
        )

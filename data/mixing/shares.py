"""The budgets of the sources, in tokens, and what a mixture refuses. Pure."""

from collections.abc import Mapping
from fractions import Fraction

from ropewalk.conf.errors import DataError


def refuse_empty_source(name: str, total: int) -> None:
    """Raises: DataError when a source gives no token."""
    if total == 0:
        raise DataError(
            f"data.sources.{name} has no tokens to train on; it must hold at least one document "
            "that is not held out and has a length weight above 0; add some, or leave the source "
            "out"
        )


def refuse_repeats(name: str, repeats: int, epochs: float, limit: int) -> None:
    """Raises: DataError when a document is taken more than `limit` times."""
    if repeats > limit:
        raise DataError(
            f"data.max_epochs is {limit}; no document may be taken more often, and of {name} one "
            f"would be taken {repeats} times ({epochs:.2f} epochs of all its tokens); add "
            f"documents, lower data.total_tokens, the weight of {name}, its length_weights or "
            "data.buckets, or raise data.max_epochs"
        )


def split_budget(total: int, weights: Mapping[str, float]) -> dict[str, int]:
    """`total` tokens by relative weights (largest remainder method)."""
    # through str: 0.1 is exactly a tenth
    exact = {name: Fraction(str(weight)) for name, weight in weights.items()}
    weight_sum = sum(exact.values()) or 1
    shares = {name: total * weight / weight_sum for name, weight in exact.items()}
    budgets = {name: int(share) for name, share in shares.items()}
    remaining = total - sum(budgets.values()) if any(exact.values()) else 0
    for name in sorted(shares, key=lambda name: budgets[name] - shares[name])[:remaining]:
        budgets[name] += 1
    return budgets


def first_to_run_out(weights: Mapping[str, float], available: Mapping[str, int | None]) -> int:
    """The largest total that splits by `weights` within every `available` (None: unlimited)."""
    exact = {name: Fraction(str(weight)) for name, weight in weights.items()}
    limits = [
        tokens * sum(exact.values()) / exact[name]
        for name, tokens in available.items()
        if tokens is not None and exact[name] > 0
    ]
    return int(min(limits, default=0))


def token_budgets(
    weights: Mapping[str, float | None],
    available: Mapping[str, int | None],
    tokens: int | None,
    rounds: Mapping[str, int | None] | None = None,
) -> dict[str, int | None]:
    """Tokens of each source, adding up to the total; None: one round.

    `available` is None for a synthetic source. Without weights, the sources' tokens are their
    weights. Without a total, the first source to run out limits it, after one round of `rounds`
    tokens (None: `available`). Without any of the three: all tokens of every source.
    """
    by_size = all(weight is None for weight in weights.values())
    if tokens is None and rounds is None and by_size:
        return dict.fromkeys(weights)
    sizes = {
        name: (available[name] if by_size else weight) or 0 for name, weight in weights.items()
    }
    if tokens is None:
        tokens = first_to_run_out(sizes, available if rounds is None else rounds)
    return dict(split_budget(tokens, sizes))

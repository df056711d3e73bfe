"""What an evaluation will cost on this hardware, told before it and again at its end.

Seconds are FLOPs over a rate: that of the last evaluation of such a model here, else a first
estimate from a short timed product.
"""

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from ropewalk.conf.artifacts.manifest import fingerprint, write_json
from ropewalk.conf.artifacts.records import UNREADABLE, read_json
from ropewalk.conf.log import log
from ropewalk.eval.engine.calls import computed_tokens, ordered_calls
from ropewalk.eval.measure.dealing import rank_and_size
from ropewalk.eval.requests import Request, Text
from ropewalk.train.base import Base
from ropewalk.train.model.build import ForwardCost, forward_cost
from ropewalk.train.zero.mesh import device

RATES = "rates.json"
OVERHEAD = 3.0
"""First estimate: a forward pass takes this many times its products, for norms, rotary and softmax.
Measured on the demo's model on a CPU; a large model on a GPU has less."""
SHORTEST_S = 1.0
"""A shorter evaluation tells no rate."""


@dataclass
class ColumnCost:
    """One column: what is to be computed, and how long it takes."""

    label: str
    requests: int
    pending: Mapping[str, Request]
    """By digest: those without a result in the cache."""
    forward: ForwardCost
    rate: float
    """FLOP/s of all ranks."""
    measured: bool
    """The rate is that of an evaluation here; else a first estimate."""
    chunk_tokens: int
    rate_key: str = ""
    took: float | None = None
    flops: int = field(init=False)

    def __post_init__(self) -> None:
        self.flops = self._flops(self.pending.values())

    @property
    def seconds(self) -> float:
        return self.flops / self.rate

    @property
    def tokens(self) -> int:
        """Of the forward passes: shared beginnings count once."""
        return sum(computed_tokens(r, self.chunk_tokens) for r in self.pending.values())

    def seconds_of(self, requests: Iterable[Request]) -> float:
        return self._flops(requests) / self.rate

    def _flops(self, requests: Iterable[Request]) -> int:
        return sum(flops(self.forward, request, self.chunk_tokens) for request in requests)


def flops(cost: ForwardCost, request: Request, chunk_tokens: int) -> int:
    """FLOPs of a request; the beginning that a prompt shares with the one before it is free."""
    if isinstance(request, Text):
        return cost.forward_flops([request.tokens], request.tokens - request.first)
    _, plans = ordered_calls(request, chunk_tokens)
    total = 0
    for each, before in zip(plans, [None, *plans], strict=False):
        prompt, shared = each.prompt, each.shared_with(before)
        new = max(len(prompt.answer), prompt.max_new_tokens)
        total += cost.forward_flops([prompt.tokens], new) - cost.body_flops([shared])
    return total


def column_cost(
    label: str,
    base: Base,
    requests: Mapping[str, Request],
    kept: Iterable[str],
    how: Mapping[str, str | int],
    rates: Mapping[str, float],
    chunk_tokens: int,
) -> ColumnCost:
    """`kept`: digests with a result in the cache. `how`: precision, kernel and device."""
    forward, known = forward_cost(base), set(kept)
    pending = {name: request for name, request in requests.items() if name not in known}
    key = fingerprint([repr(forward), how, rank_and_size()[1], torch.get_num_threads()])[:16]
    rate = rates.get(key) or (first_rate(forward, str(how["precision"])) if pending else 1.0)
    known_rate = key in rates
    return ColumnCost(label, len(requests), pending, forward, rate, known_rate, chunk_tokens, key)


def first_rate(cost: ForwardCost, precision: str) -> float:
    """FLOP/s of all ranks by a short timed product of about the model's width."""
    width = max(64, math.isqrt(cost.matrices // max(1, len(cost.layers)) // 12))
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a = torch.ones(1024, width, dtype=dtype, device=device())
    b = torch.ones(width, 4 * width, dtype=dtype, device=device())
    done, start = 0, time.perf_counter()
    while not done or time.perf_counter() - start < 0.05:
        (a @ b).sum().item()
        done += 1
    rate = done * 8 * 1024 * width * width / (time.perf_counter() - start)
    return rate * rank_and_size()[1] / OVERHEAD


def known_rates(cache: Path) -> dict[str, float]:
    """Rates of earlier evaluations here, by what decides them."""
    try:
        return {str(key): float(value) for key, value in read_json(cache / "eval" / RATES).items()}
    except (*UNREADABLE, TypeError, AttributeError):
        return {}


def remember(costs: Sequence[ColumnCost], cache: Path) -> None:
    """The rates of this evaluation, for the next one's estimate."""
    rates = {
        cost.rate_key: cost.flops / cost.took
        for cost in costs
        if cost.took is not None and cost.took > SHORTEST_S and cost.flops
    }
    if rates:
        write_json(cache / "eval" / RATES, known_rates(cache) | rates)


def estimate_lines(costs: Sequence[ColumnCost]) -> list[str]:
    """A line for each column, and one for all."""
    lines = []
    for cost in costs:
        kept = cost.requests - len(cost.pending)
        text = f"eval: {cost.label}: {cost.requests:,} requests"
        text += f", {kept:,} of them in the cache" if kept else ""
        if cost.pending:
            kind = "as measured before" if cost.measured else "first estimate"
            text += f"; {cost.tokens:,} tokens to compute, about {cost.seconds:,.0f} s ({kind})"
        lines.append(text)
    total = sum(cost.seconds for cost in costs)
    if sum(bool(cost.pending) for cost in costs) > 1:
        lines.append(f"eval: about {total:,.0f} s for all columns")
    return lines


def log_durations(costs: Sequence[ColumnCost]) -> None:
    """What each column took, beside the estimate."""
    for cost in costs:
        if cost.pending and cost.took is not None:
            speed = cost.tokens / max(cost.took, 1e-9)
            log.info(
                f"eval: {cost.label} took {cost.took:,.1f} s ({cost.seconds:,.0f} s estimated), "
                f"{speed:,.0f} tokens/s"
            )

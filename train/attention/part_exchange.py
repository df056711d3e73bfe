"""The exchange of heads and of the keys of a sequence around an attention kernel.

It is what ulysses.py puts around a kernel when the ranks do not divide the heads. One all-to-all
each brings queries, keys and values to the rank that attends, as sequence_parts.py plans, and one
brings the output back. Gradients go the other way round; those of a key that several ranks saw are
summed in fp32.

    P ranks of a sequence   S its tokens   s = S / P   T queries, U keys of this rank's part
    H, K query and key/value heads   h, k those of this rank   D head size   E of values
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from ropewalk.conf.errors import ConfigError
from ropewalk.train.attention.borders import DocumentBorders, Ends, document_borders
from ropewalk.train.attention.sequence_parts import (
    RankPlan,
    Route,
    Spans,
    key_head_order,
    key_heads,
    num_head_groups,
    num_tokens,
    plan_of_rank,
    query_heads,
)
from ropewalk.train.attention.support import KernelFunction


class PartExchange:
    """An attention kernel on this rank's heads and its part of the sequence."""

    def __init__(
        self, kernel: KernelFunction, num_heads: int, num_kv_heads: int, group: dist.ProcessGroup
    ) -> None:
        self.kernel, self.heads, self.group = kernel, (num_heads, num_kv_heads), group
        self.sp_size, self.sp_rank = group.size(), group.rank()
        self.groups = num_head_groups(num_heads, self.sp_size)
        self.head_group = self.sp_rank % self.groups
        self.key_order = key_head_order(*self.heads, self.groups, self.head_group)

    def __call__(
        self,
        module: nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: None,
        *,
        s_aux: torch.Tensor | None = None,
        sliding_window: int | None = None,
        document_ends: Ends | None = None,
        cu_seqlens: torch.Tensor | None = None,
        max_seqlen: int | None = None,
        position_ids: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, None]:
        """query (1, H, s, D), key (1, K, s, D), value (1, K, s, E) -> (1, s, H, E).

        `s_aux` (H,): gpt-oss's sinks. Raises: ConfigError when a layer's heads differ from the
        config's.
        """
        self._check_heads(query, key)
        ends = document_ends or (0, query.shape[2] * self.sp_size)
        plan = plan_of_rank(ends, self.sp_size, self.groups, self.sp_rank, sliding_window)
        exchanges = self._exchanges(plan, query.shape[2])
        q, k, v = _ToPart.apply(exchanges, *(x[0].transpose(0, 1) for x in (query, key, value)))
        inputs = q, self._in_order(k), self._in_order(v)
        sinks = None if s_aux is None else s_aux.chunk(self.groups)[self.head_group]
        if not plan.part.segments:
            return _ToSlices.apply(exchanges[0], _no_output(*inputs, sinks))[None], None
        queries, keys = _part_borders(plan, query.device)
        output, _ = self.kernel(
            module,
            *(x.transpose(0, 1)[None] for x in inputs),
            attention_mask,
            s_aux=sinks,
            sliding_window=sliding_window,
            key_borders=keys,
            **queries,
            **kwargs,
        )
        return _ToSlices.apply(exchanges[0], output[0])[None], None

    def _check_heads(self, query: torch.Tensor, key: torch.Tensor) -> None:
        """Raises: ConfigError."""
        heads = (query.shape[1], key.shape[1])
        if heads != self.heads:
            raise ConfigError(
                f"train.sp_size is {self.sp_size}; each layer must have {self.heads[0]} query and "
                f"{self.heads[1]} key/value heads, as the model's config says; one has {heads[0]} "
                f"and {heads[1]}; set train.sp_size=1"
            )

    def _exchanges(self, plan: RankPlan, size: int) -> tuple["Exchange", "Exchange"]:
        """Of the queries (and the output), and of keys and values."""
        shared = (self.group, self.head_group, size)
        heads = query_heads(self.heads[0], self.groups)
        kv_heads = key_heads(*self.heads, self.groups)
        rows = ((0, sum(plan.queries.receive)),)
        return (
            Exchange(plan.queries, heads, rows, False, *shared),
            Exchange(plan.keys, kv_heads, plan.part.key_slices, True, *shared),
        )

    def _in_order(self, x: torch.Tensor) -> torch.Tensor:
        """Keys or values (U, k, D), repeated where query heads share them unevenly."""
        if self.key_order == tuple(range(x.shape[1])):
            return x
        return torch.cat([x[:, n : n + 1] for n in self.key_order], dim=1)


def _no_output(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, sinks: torch.Tensor | None
) -> torch.Tensor:
    """(0, h, E) of a rank without queries: there are fewer tokens than pieces.

    It depends on all inputs, so that their gradients, and the collectives in them, are the same on
    every rank.
    """
    inputs = (query, key, value) if sinks is None else (query, key, value, sinks)
    return value.new_zeros(0, query.shape[1], value.shape[2]) + 0 * sum(x.sum() for x in inputs)


@lru_cache(maxsize=16)
def _part_borders(plan: RankPlan, device: torch.device) -> tuple[DocumentBorders, DocumentBorders]:
    """Borders of a part's queries and of its keys, cached: once a step and not once a layer."""
    lengths = zip(
        *((num_tokens((x.queries,)), num_tokens((x.keys,))) for x in plan.part.segments),
        strict=True,
    )
    with torch.inference_mode(False):
        queries, keys = (
            document_borders(torch.tensor([0, *n]).cumsum(0, dtype=torch.int32), device)
            for n in lengths
        )
    return queries, keys


@dataclass(frozen=True)
class Exchange:
    """Moves a tensor from the slices of all ranks to this rank's part, and back."""

    route: Route
    heads: Spans
    """The heads of each head group."""
    rows: Spans
    """Which of the tokens that arrive the kernel gets, in its order; some may be there twice."""
    summed: bool
    """Whether a token goes to several ranks, so that what comes back is a sum."""
    group: dist.ProcessGroup
    head_group: int
    size: int
    """Tokens of a slice."""

    def to_part(self, x: torch.Tensor) -> torch.Tensor:
        """(s, all heads, D) -> (tokens of the part, this rank's heads, D)."""
        blocks = [
            x[low:high, first:end].flatten()
            for spans in self.route.send
            for first, end in self.heads
            for low, high in spans
        ]
        flat = torch.cat([x.new_empty(0), *blocks])
        sent, received = self._elements(x.shape[2])
        rows = self._all_to_all(flat, sent, received).view(-1, self._own_heads, x.shape[2])
        if self.rows == ((0, len(rows)),):
            return rows
        return torch.cat([rows[:0], *(rows[low:high] for low, high in self.rows)])

    def to_slices(self, x: torch.Tensor) -> torch.Tensor:
        """The transpose of `to_part`: (tokens of the part, this rank's heads, D) -> (s, all, D)."""
        dim = x.shape[2]
        dtype = torch.promote_types(x.dtype, torch.float32) if self.summed else x.dtype
        if self.rows != ((0, len(x)),):
            x = self._add_rows(x, dtype)
        sent, received = self._elements(dim)
        flat = self._all_to_all(x.flatten(), received, sent)
        result = x.new_zeros(self.size, self.heads[-1][1], dim, dtype=dtype)
        first_element = 0
        for spans in self.route.send:
            for first, end in self.heads:
                for low, high in spans:
                    block = flat.narrow(0, first_element, (high - low) * (end - first) * dim)
                    result[low:high, first:end] += block.view(high - low, end - first, dim)
                    first_element += len(block)
        return result.to(x.dtype)

    def _add_rows(self, x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Sum the tokens that the kernel got twice."""
        result = x.new_zeros(sum(self.route.receive), *x.shape[1:], dtype=dtype)
        lengths = [high - low for low, high in self.rows]
        for (low, high), part in zip(self.rows, x.split(lengths), strict=True):
            result[low:high] += part
        return result.to(x.dtype)

    @property
    def _own_heads(self) -> int:
        return num_tokens((self.heads[self.head_group],))

    def _elements(self, dim: int) -> tuple[list[int], list[int]]:
        """Elements that this rank sends to each rank, and gets from each."""
        sent = [
            num_tokens(spans) * (end - first) * dim
            for spans in self.route.send
            for first, end in self.heads
        ]
        return sent, [tokens * self._own_heads * dim for tokens in self.route.receive]

    def _all_to_all(self, flat: torch.Tensor, sent: list[int], received: list[int]) -> torch.Tensor:
        # not in place, so that a policy of checkpointing may keep what comes back
        ops = torch.ops._c10d_functional
        name = self.group.group_name
        output: torch.Tensor = ops.wait_tensor(ops.all_to_all_single(flat, received, sent, name))
        return output


class _ToPart(torch.autograd.Function):
    """Queries, keys and values at once, so that all ranks make their collectives in one order."""

    @staticmethod
    def forward(
        ctx: Any,
        exchanges: tuple[Exchange, Exchange],
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        ctx.exchanges = exchanges
        queries, keys = exchanges
        return queries.to_part(query), keys.to_part(key), keys.to_part(value)

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> tuple[None, torch.Tensor, torch.Tensor, torch.Tensor]:
        queries, keys = ctx.exchanges
        return None, queries.to_slices(query), keys.to_slices(key), keys.to_slices(value)


class _ToSlices(torch.autograd.Function):
    """The output, back to the ranks that hold its tokens."""

    @staticmethod
    def forward(ctx: Any, exchange: Exchange, output: torch.Tensor) -> torch.Tensor:
        ctx.exchange = exchange
        return exchange.to_slices(output)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[None, torch.Tensor]:  # type: ignore[override]
        return None, ctx.exchange.to_part(gradient)

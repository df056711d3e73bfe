"""The sources as a plan draws from them, and what decides the plan."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import ceil, inf
from typing import Any

from ropewalk.conf.data_mixture import Rules, rules
from ropewalk.conf.rules import content
from ropewalk.conf.schema import Config
from ropewalk.data.mixing import mixed_order, offers
from ropewalk.data.mixing.overlong import Candidates
from ropewalk.data.mixing.shares import refuse_empty_source, refuse_repeats
from ropewalk.data.mixing.supply import BucketedSource
from ropewalk.data.tokens.store import FORMAT, BoundaryTokens, Store


@dataclass(frozen=True)
class Mixture:
    """The sources as the plan draws from them. Mappings are in the order of `data.sources`."""

    config: Config
    stores: Mapping[str, Store]
    candidates: Mapping[str, Candidates]
    budgets: Mapping[str, int | None]  # tokens; None: one round of all documents
    boundary_tokens: BoundaryTokens

    def cache_key(self) -> dict[str, Any]:
        """The values that decide the plan."""
        data = content(self.config.data)
        shape = {key: data[key] for key in ("seq_len", "document_mask", "positions", "min_piece")}
        return {
            "format": FORMAT,
            # a list: document numbers go by this order
            "stores": [[name, store.cache_name] for name, store in self.stores.items()],
            "heldout": self.config.data.heldout_share,
            "budget": dict(self.budgets),
            "seed": self.config.seed,
            **shape,
            **self._choices(),
            **self._removed(),
            **self.blocks,
        }

    @cached_property
    def sources(self) -> dict[str, BucketedSource]:
        """The sources that the plan takes anything of. Raises: DataError for an empty one."""
        sources = {
            name: offers.bucketed_source(
                self.config, name, self.candidates[name], store, self.boundary_tokens
            )
            for name, store in self.stores.items()
            if self.budgets[name] != 0
        }
        for name, source in sources.items():
            refuse_empty_source(name, source.total)
            epochs = (self.budgets[name] or 0) / source.total
            # before arrays of that many takings exist
            refuse_repeats(name, ceil(epochs), epochs, self.config.data.max_epochs)
        return sources

    @cached_property
    def most_takings(self) -> int:
        """At least as many takings as the plan has."""
        return sum(s.most_takings(self.budgets[name]) for name, s in self.sources.items())

    @property
    def num_blocks(self) -> int:
        """Of the mixed order, and so of the plan."""
        return mixed_order.num_blocks(self.most_takings)

    @property
    def blocks(self) -> dict[str, int]:
        """Their number for fingerprint and manifest.

        A plan of one block keeps the name that it had before there were blocks.
        """
        return {} if self.num_blocks == 1 else {"blocks": self.num_blocks}

    def _choices(self) -> dict[str, Any]:
        """Settings that differ from their default: a new setting keeps the names of old plans."""
        data, names = self.config.data, offers.text_sources(self.config)
        spans = {name: [data.sources[name].min_len, data.sources[name].max_len] for name in names}
        pieces = {n: s.piece_len for n, s in data.sources.items() if s.piece_len is not None}
        weights = {n: _json_rules(rules(offers.length_weights(self.config, n))) for n in names}
        choices = {
            "packer": (data.packer, "window_fill"),
            "overlong": (data.overlong, "split"),
            "piece_len": (pieces, {}),
            "begin": (self.boundary_tokens.begin, None),
            "end": (self.boundary_tokens.end, None),
            "spans": ({n: span for n, span in spans.items() if span != [None, None]}, {}),
            "length_weights": ({n: weight for n, weight in weights.items() if weight}, {}),
            "buckets": (_json_rules(rules(data.buckets)), []),
        }
        return {key: value for key, (value, default) in choices.items() if value != default}

    def _removed(self) -> dict[str, Any]:
        """Digests of the documents that cleaning removed from sources of the mixture."""
        digests = {
            name: usable.removed_digest
            for name, usable in self.candidates.items()
            if usable.removed_digest and self.budgets[name] != 0
        }
        return {"removed": digests} if digests else {}


def _json_rules(length_rules: Rules) -> list[Any]:
    return [
        [span.low, None if span.high == inf else span.high, number]
        for span, number, _ in length_rules
    ]

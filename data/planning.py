"""Candidates -> selections -> plan -> ledger: joins mixing, packing and the ledger."""

from collections.abc import Container, Mapping
from dataclasses import dataclass
from math import ceil, inf
from pathlib import Path
from typing import Any

import numpy as np

from ropewalk.conf.artifacts import manifest
from ropewalk.conf.artifacts.manifest import run_shared
from ropewalk.conf.data_mixture import Rules, rules
from ropewalk.conf.rules import content
from ropewalk.conf.schema import Config
from ropewalk.conf.sources import SYNTHETIC
from ropewalk.data.ledger import terminal
from ropewalk.data.ledger.entries import PlanStatistics, left_out, prove
from ropewalk.data.mixing import offers, overlong
from ropewalk.data.mixing.overlong import Candidates
from ropewalk.data.mixing.shares import Selection, mix, refuse_empty_source, refuse_repeats
from ropewalk.data.packing import plan
from ropewalk.data.packing.packed import Packed
from ropewalk.data.tokens.corpus import Corpus
from ropewalk.data.tokens.store import FORMAT, BoundaryTokens, Store

EXCLUDED = ("dropped", "dropped_documents", "outside_length", "outside_length_documents")
NOTHING_TAKEN = {"tokens_in_plan": 0, "marks": 0, "cut": 0, "epochs": 0.0, "repeats": 0}


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
        }

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


def make_plan(mixture: Mixture, cache: Path) -> Path:
    """The plan's folder in the cache, written unless it exists. Raises: DataError."""
    data = mixture.config.data
    cache_key = mixture.cache_key()
    folder = cache / "plans" / manifest.fingerprint(cache_key)[:16]
    if requested := terminal.mixture(data):
        print(requested)
    finished, message = run_shared(
        "plan", cache_key, folder, lambda temporary: _write_plan(mixture, temporary)
    )
    # an existing plan may have been made under a higher max_epochs
    for name, row in finished.facts["sources"].items():
        refuse_repeats(name, row["repeats"], row["epochs"], data.max_epochs)
    print(message)
    return folder


def _write_plan(mixture: Mixture, folder: Path) -> dict[str, Any]:
    """Write `plan.arrow`; returns the metadata of its manifest. Raises: DataError."""
    config, boundary_tokens = mixture.config, mixture.boundary_tokens
    selections, rows = {}, {}
    for name in [name for name in config.data.sources if mixture.budgets[name] != 0]:
        selections[name], rows[name] = _select(mixture, name)
    synthetic = {name for name in selections if config.data.sources[name].kind in SYNTHETIC}
    packed = pack_selections(
        selections,
        dict(zip(mixture.stores, Corpus(mixture.stores).first.tolist(), strict=False)),
        config.data.seq_len,
        config.data.min_piece,
        config.seed,
        keep_intact=synthetic,
        packer=config.data.packer,
        max_piece={name: offers.max_piece(config, name) for name in selections},
    )
    plan.write(folder, packed)
    counts = plan.describe(packed, config.data.seq_len, sum(row["marks"] for row in rows.values()))
    settings = ("packer", "overlong", "document_mask", "positions")
    return {
        **counts,
        **{key: getattr(config.data, key) for key in settings},
        "begin": boundary_tokens.begin,
        "end": boundary_tokens.end,
        "sources": rows,
    }


def _select(mixture: Mixture, name: str) -> tuple[Selection, dict[str, Any]]:
    """The plan's selection of a source, and its entries of the ledger. Raises: DataError."""
    store, budget = mixture.stores[name], mixture.budgets[name]
    limit, boundary_tokens = mixture.config.data.max_epochs, mixture.boundary_tokens
    source = offers.bucketed_source(
        mixture.config, name, mixture.candidates[name], store, boundary_tokens
    )
    refuse_empty_source(name, source.total)
    epochs = (budget or 0) / source.total
    refuse_repeats(name, ceil(epochs), epochs, limit)  # before arrays of that many takings exist
    selection = source.take(budget)
    refuse_repeats(name, selection.repeats, selection.epochs, limit)
    row = overlong.ledger_row(selection, store, boundary_tokens) | source.ledger_entry(budget)
    return selection, row


def pack_selections(
    selections: Mapping[str, Selection],
    first: Mapping[str, int],
    seq_len: int,
    min_piece: int,
    seed: int,
    *,
    keep_intact: Container[str] = (),
    packer: str = "window_fill",
    max_piece: Mapping[str, int],
) -> Packed:
    """Mix the sources' selections by hash and pack them.

    `first[name]` is the number of the source's first document, `max_piece[name]` its longest piece.
    Documents of the sources in `keep_intact` are not cut to fill a gap.
    """
    takings = mix(selections, first, seed)
    limits = np.array([max_piece[name] for name in selections], dtype=np.int64)
    intact = np.array([name in keep_intact for name in selections], dtype=bool)
    return plan.build(
        takings.document,
        takings.tokens,
        limits[takings.source],
        intact[takings.source],
        seq_len,
        min_piece,
        seed,
        packer,
    )


def make_ledger(mixture: Mixture, plan_path: Path) -> dict[str, Any]:
    """`ledger.json` of a finished plan: for each source, tokens read, left out and taken.

    Raises: ProofError when the plan and the mixture's selections differ.
    """
    metadata = dict(manifest.read(plan_path).facts)  # type: ignore[union-attr]
    selections = metadata.pop("sources")
    counts, entries = PlanStatistics.from_plan(plan_path, mixture.stores, metadata).entries()
    rows = {}
    for name, store in mixture.stores.items():
        usable, selected = mixture.candidates[name], selections.get(name, NOTHING_TAKEN)
        share = selected["tokens_in_plan"] / max(metadata["tokens"], 1)
        rows[name] = {
            **{k: v for k, v in store.metadata.items() if k not in ("dtype", "shards")},
            **store.heldout_counts(),
            **{key: getattr(usable, key) for key in EXCLUDED},
            "removed": overlong.removed_counts(usable, store),
            "share_in_plan": round(share, 6),
            **selected,
            **entries[name],
        }
        prove(name, rows[name])
        rows[name]["left_out"] = left_out(rows[name])
    return {"schema": 1, "sources": rows, "plan": metadata | counts}

"""Mixture -> plan -> ledger: joins mixing, packing and the ledger."""

from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ropewalk.conf.artifacts import manifest
from ropewalk.conf.artifacts.manifest import run_shared
from ropewalk.conf.sources import SYNTHETIC
from ropewalk.data.ledger import terminal
from ropewalk.data.ledger.entries import count_plan, left_out, prove
from ropewalk.data.mixing import mixed_order, offers, overlong
from ropewalk.data.mixing.rounds import Selection
from ropewalk.data.mixing.shares import refuse_repeats
from ropewalk.data.mixture import Mixture
from ropewalk.data.packing import plan
from ropewalk.data.packing.build import PackingOptions, build
from ropewalk.data.packing.packed import Packed
from ropewalk.data.tokens.corpus import Corpus

EXCLUDED = ("dropped", "dropped_documents", "outside_length", "outside_length_documents")
NOTHING_TAKEN = {"tokens_in_plan": 0, "marks": 0, "cut": 0, "epochs": 0.0, "repeats": 0}


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
    rows: dict[str, dict[str, Any]] = {}
    total = 2 * mixture.most_takings  # each is mixed, then packed
    with tqdm(total=total, unit="doc", unit_scale=True, desc="plan", disable=None) as bar:
        parts = {name: _counted(mixture, name, rows, bar) for name in mixture.sources}
        totals = plan.write(folder, _shown(_sequences(mixture, parts, folder), bar))
    marks = sum(row["marks"] for row in rows.values())
    settings = ("packer", "overlong", "document_mask", "positions")
    return {
        **plan.describe(totals, config.data.seq_len, marks),
        **{key: getattr(config.data, key) for key in settings},
        "begin": boundary_tokens.begin,
        "end": boundary_tokens.end,
        "sources": rows,
        **mixture.blocks,
    }


def _sequences(
    mixture: Mixture, parts: Mapping[str, Iterable[Selection]], folder: Path
) -> Iterator[Packed]:
    data = mixture.config.data
    return pack_selections(
        parts,
        dict(zip(mixture.stores, Corpus(mixture.stores).first.tolist(), strict=False)),
        data.seq_len,
        data.min_piece,
        mixture.config.seed,
        folder,
        keep_intact={name for name in parts if data.sources[name].kind in SYNTHETIC},
        packer=data.packer,
        max_piece={name: offers.max_piece(mixture.config, name) for name in parts},
        blocks=mixture.num_blocks,
    )


def _shown(blocks: Iterable[Packed], bar: "tqdm[Any]") -> Iterator[Packed]:
    """Count takings in the bar: each has one piece that starts at 0."""
    for packed in blocks:
        bar.update(int(np.count_nonzero(packed.start == 0)))
        yield packed


def _counted(
    mixture: Mixture, name: str, rows: dict[str, dict[str, Any]], bar: "tqdm[Any]"
) -> Iterator[Selection]:
    """The plan's takings of a source; at their end `rows` has its entries of the ledger.

    Raises: DataError for too many repeats.
    """
    source, store, budget = mixture.sources[name], mixture.stores[name], mixture.budgets[name]
    counts: Counter[str] = Counter(tokens_in_plan=0, marks=0, cut=0)
    repeats = 0
    for part in source.parts(budget):
        counts.update(overlong.count_taken(part, store, mixture.boundary_tokens))
        repeats = max(repeats, part.repeats)
        bar.update(len(part.index))
        yield part
    epochs = (counts["tokens_in_plan"] + counts["marks"]) / source.total
    refuse_repeats(name, repeats, epochs, mixture.config.data.max_epochs)
    rows[name] = {**counts, "epochs": epochs, "repeats": repeats, **source.ledger_entry(budget)}


def pack_selections(
    selections: Mapping[str, Iterable[Selection]],
    first: Mapping[str, int],
    seq_len: int,
    min_piece: int,
    seed: int,
    folder: Path,
    *,
    keep_intact: Container[str] = (),
    packer: str = "window_fill",
    max_piece: Mapping[str, int],
    blocks: int = 1,
) -> Iterator[Packed]:
    """Mix the sources' selections by hash and pack them, block by block.

    `first[name]` is the number of the source's first document, `max_piece[name]` its longest piece.
    Documents of the sources in `keep_intact` are not cut to fill a gap. `folder` is for the files
    of several blocks, which are deleted again.
    """
    options = PackingOptions(
        seq_len,
        min_piece,
        seed,
        packer,
        np.array([max_piece[name] for name in selections], dtype=np.int64),
        np.array([name in keep_intact for name in selections], dtype=bool),
    )
    return build(mixed_order.mixed(selections, first, seed, folder, blocks), options)


def make_ledger(mixture: Mixture, plan_path: Path) -> dict[str, Any]:
    """`ledger.json` of a finished plan: for each source, tokens read, left out and taken.

    Raises: ProofError when the plan and the mixture's selections differ.
    """
    metadata = dict(manifest.read(plan_path).facts)  # type: ignore[union-attr]
    selections = metadata.pop("sources")
    counts, entries = count_plan(plan_path, mixture.stores, metadata)
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

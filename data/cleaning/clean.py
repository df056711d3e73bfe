"""The cleaning step of the data stage: stores and candidates -> candidates, ledger entries.

Duplicates are searched among the documents that the mixture draws from; held-out text in those that
remain and in the fillers of synthetic sources.
"""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ropewalk.conf.artifacts import manifest
from ropewalk.conf.artifacts.manifest import run_shared
from ropewalk.conf.cleaning import ContaminationConfig, DuplicatesConfig
from ropewalk.conf.data import DataConfig
from ropewalk.conf.errors import DataError
from ropewalk.conf.sources import SYNTHETIC
from ropewalk.data.cleaning import contamination, duplicates, minhash
from ropewalk.data.cleaning.duplicates import EXACT, NEAR
from ropewalk.data.mixing.overlong import Candidates
from ropewalk.data.tokens.corpus import Corpus
from ropewalk.data.tokens.store import Store

FORMAT = 2  # raise when the same settings find other documents


@dataclass(frozen=True)
class Cleaned:
    """The text sources after cleaning."""

    stores: dict[str, Store]
    """For the fillers of synthetic sources: removed contaminated documents count as held out."""
    offers: dict[str, Candidates]
    source_entries: dict[str, dict[str, Any]]  # added to the ledger's row of each source
    ledger_entries: dict[str, Any]  # added to the ledger

    def add_to_ledger(self, ledger: dict[str, Any]) -> dict[str, Any]:
        rows = ledger["sources"].items()
        sources = {name: {**row, **self.source_entries.get(name, {})} for name, row in rows}
        return {**ledger, "sources": sources, **self.ledger_entries}


def require_packages(data: DataConfig) -> None:
    """Raises: ConfigError without the package that near duplicates need."""
    if data.duplicates.near != "off":
        minhash.require_datasketch()


def clean(
    data: DataConfig, stores: dict[str, Store], offers: dict[str, Candidates], cache: Path
) -> Cleaned:
    """Find duplicates and contamination, and remove them as the settings say.

    Raises: DataError for contamination with `action=error`, and for a source that loses all.
    """
    corpus = Corpus(stores)
    mixed, fillers = _sources_drawn_from(data)
    kinds = _duplicates(data.duplicates, corpus, _usable(corpus, offers, mixed), cache)
    remaining = _without_duplicates(data.duplicates, corpus, kinds, offers)
    filler_text = _documents_of(corpus, fillers) & ~corpus.heldout
    training = _usable(corpus, remaining, mixed) | filler_text
    removed, section = _contamination(data.contamination, corpus, training, cache)
    removed_of = corpus.by_source(removed)
    remaining = {n: remaining[n].without(removed_of[n], "held-out text") for n in stores}
    _refuse_emptied(offers, remaining)
    rows = duplicates.ledger_rows(corpus, kinds, data.duplicates.near != "off")
    return Cleaned(
        {name: _hold_out(store, removed_of[name]) for name, store in stores.items()},
        remaining,
        {name: {"duplicates": row} for name, row in rows.items()},
        {"contamination": {"action": data.contamination.action, **section}},
    )


def _sources_drawn_from(data: DataConfig) -> tuple[set[str], set[str]]:
    """Sources whose documents the mixture takes, and the fillers of its synthetic sources."""
    drawn = {name: s for name, s in data.sources.items() if s.weight != 0}
    return set(drawn), {s.filler or "" for s in drawn.values() if s.kind in SYNTHETIC}


def _documents_of(corpus: Corpus, names: set[str]) -> np.ndarray:
    return np.repeat([name in names for name in corpus.stores], np.diff(corpus.first))


def _usable(corpus: Corpus, offers: dict[str, Candidates], names: set[str]) -> np.ndarray:
    usable = np.concatenate([offers[name].usable for name in corpus.stores])
    return usable & _documents_of(corpus, names)


def _duplicates(
    settings: DuplicatesConfig, corpus: Corpus, eligible: np.ndarray, cache: Path
) -> np.ndarray:
    """(documents,) uint8: EXACT, NEAR or 0."""
    search_near = settings.near != "off"
    near = {key: getattr(settings, key) for key in ("ngram", "permutations", "threshold")}
    cache_key = {
        "stores": [store.fingerprint for store in corpus.stores.values()],
        "among": _digest(eligible),
        "near": near if search_near else None,
    }

    def compute() -> np.ndarray:
        signatures = _signatures(settings, corpus, cache) if search_near else None
        return duplicates.find_duplicates(corpus, eligible, signatures, settings.threshold)

    return _cached("duplicates", cache_key, cache / "duplicates", compute)


def _signatures(settings: DuplicatesConfig, corpus: Corpus, cache: Path) -> np.ndarray:
    """(documents, permutations) uint32, cached by store."""
    n, permutations = settings.ngram, settings.permutations
    signatures = []
    for name, store in corpus.stores.items():
        cache_key = {"store": store.fingerprint, "ngram": n, "permutations": permutations}

        def compute(name: str = name, store: Store = store) -> np.ndarray:
            with _progress_bar(int(store.length.sum()), name) as bar:
                return minhash.signatures(Corpus({name: store}), n, permutations, bar.update)

        stage = f"signatures of {name}"
        signatures.append(_cached(stage, cache_key, cache / "signatures", compute))
    return np.concatenate(signatures)


def _without_duplicates(
    settings: DuplicatesConfig, corpus: Corpus, kinds: np.ndarray, offers: dict[str, Candidates]
) -> dict[str, Candidates]:
    remaining = dict(offers)
    for kind, action, reason in (
        (EXACT, settings.exact, "exact duplicate"),
        (NEAR, settings.near, "near duplicate"),
    ):
        if action == "remove":
            for name, documents in corpus.by_source(kinds == kind).items():
                remaining[name] = remaining[name].without(documents, reason)
    return remaining


def _contamination(
    settings: ContaminationConfig, corpus: Corpus, training: np.ndarray, cache: Path
) -> tuple[np.ndarray, dict[str, Any]]:
    """(documents,) bool to remove, and the ledger's section on the others. Raises: DataError."""
    n, limit = settings.ngram, settings.share
    removed = np.zeros(len(training), dtype=bool)
    if settings.action == "off":
        return removed, {}
    fraction = _shared_fraction(n, corpus, training, cache)
    if settings.action == "remove":
        removed = training & (fraction > limit)
    if removed.any():  # search the remaining documents that shared text once more
        training = training & ~removed
        fraction = _shared_fraction(n, corpus, training & (fraction > 0), cache)
    if settings.action == "error":
        contamination.refuse_contaminated(corpus, fraction, n, limit)
    return removed, contamination.ledger_section(corpus, training, fraction, n, limit)


def _shared_fraction(n: int, corpus: Corpus, training: np.ndarray, cache: Path) -> np.ndarray:
    def compute() -> np.ndarray:
        with _progress_bar(int(corpus.length[training].sum()), "held-out text") as bar:
            return contamination.shared_ngrams(corpus, training, n, bar.update)

    cache_key = {
        "stores": [store.fingerprint for store in corpus.stores.values()],
        "training": _digest(training),
        "heldout": _digest(corpus.heldout_once),
        "ngram": n,
    }
    counts = _cached("contamination", cache_key, cache / "contamination", compute)
    return contamination.shared_fraction(corpus, counts, n)


def _hold_out(store: Store, removed: np.ndarray) -> Store:
    """The store without `removed` documents (documents,) bool in its training text."""
    return replace(store, heldout=store.heldout | removed) if removed.any() else store


def _refuse_emptied(candidates: dict[str, Candidates], remaining: dict[str, Candidates]) -> None:
    for name, offer in remaining.items():
        count = int(candidates[name].usable.sum())
        if count and not offer.usable.any():
            reasons = ", ".join(f"{reason}: {len(d)}" for reason, d in offer.removed.items())
            raise DataError(
                f"data.sources.{name} is left with no document; a source must keep one for the "
                f"mixture, and of its {count} all were removed ({reasons}); leave the source out, "
                "or set report instead of remove in data.duplicates or data.contamination"
            )


def _cached(
    stage: str, cache_key: dict[str, Any], parent: Path, compute: Callable[[], np.ndarray]
) -> np.ndarray:
    """An array that is computed once for each `cache_key`."""
    content = {"format": FORMAT, **cache_key}
    folder = parent / manifest.fingerprint(content)[:16]

    def work(temporary: Path) -> dict[str, Any]:
        _save(temporary / "documents.npy", compute())
        return {}

    print(run_shared(stage, content, folder, work)[1])
    return np.load(folder / "documents.npy", mmap_mode="r")  # type: ignore[no-any-return]


def _save(path: Path, array: np.ndarray) -> None:
    """Like `np.save`, whose error for a full disk only counts the bytes written."""
    array = np.ascontiguousarray(array)
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        file.write(array.data)
        file.flush()
        os.fsync(file.fileno())


def _digest(mask: np.ndarray) -> str:
    return hashlib.sha256(np.packbits(mask).tobytes()).hexdigest()


def _progress_bar(total: int, label: str) -> "tqdm[Any]":
    return tqdm(total=total, unit="tok", unit_scale=True, desc=label, disable=None)

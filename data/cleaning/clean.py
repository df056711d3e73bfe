"""Duplicates and contamination as the stage looks for them: stores and offers -> what may be mixed, and what the ledger says.

Duplicates are looked for among what the mixture draws from; held-out text in what is then left, and in the fillers.
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
from ropewalk.data.cleaning import contamination, duplicates, signatures
from ropewalk.data.cleaning.documents import Texts
from ropewalk.data.cleaning.duplicates import EXACT, NEAR
from ropewalk.data.mixing.overlong import Candidates
from ropewalk.data.tokens.store import Store

FORMAT = 2  # raise when the same settings find something else


@dataclass(frozen=True)
class Cleaned:
    """The text sources after cleaning, and what was found."""

    stores: dict[
        str, Store
    ]  # contaminated documents that were removed count as held out: fillers are read from these
    offers: dict[str, Candidates]
    rows: dict[str, dict[str, Any]]  # source -> what its row in the ledger gains
    facts: dict[str, Any]  # what the ledger gains

    def enter(self, ledger: dict[str, Any]) -> dict[str, Any]:
        rows = {name: {**row, **self.rows.get(name, {})} for name, row in ledger["sources"].items()}
        return {**ledger, "sources": rows, **self.facts}


def require(data: DataConfig) -> None:
    """Before a token is written. Raises: ConfigError without the package that near duplicates need."""
    if data.duplicates.near != "off":
        signatures.require()


def clean(
    data: DataConfig, stores: dict[str, Store], offers: dict[str, Candidates], cache: Path
) -> Cleaned:
    """Look, and remove what the settings say. Raises: DataError by `error`, or when a source is left with nothing."""
    texts = Texts(stores)
    mixed, fillers = _drawn_from(data)
    kinds = _duplicates(data.duplicates, texts, _usable(texts, offers, mixed), cache)
    left = _without_duplicates(data.duplicates, texts, kinds, offers)
    read = _usable(texts, left, mixed) | (_of(texts, fillers) & ~texts.heldout)
    leave, found = _contamination(data.contamination, texts, read, cache)
    leaves = texts.split(leave)
    left = {name: left[name].without(leaves[name], "held-out text") for name in stores}
    _refuse_emptied(offers, left)
    return Cleaned(
        {name: _kept_from(stores[name], leaves[name]) for name in stores},
        left,
        {
            n: {"duplicates": row}
            for n, row in duplicates.account(texts, kinds, data.duplicates.near != "off").items()
        },
        {"contamination": {"action": data.contamination.action, **found}},
    )


def _drawn_from(data: DataConfig) -> tuple[set[str], set[str]]:
    """Sources that the mixture takes documents of, and those whose text it takes through a synthetic source."""
    drawn = {name: s for name, s in data.sources.items() if s.weight != 0}
    return set(drawn), {s.filler or "" for s in drawn.values() if s.kind in SYNTHETIC}


def _of(texts: Texts, names: set[str]) -> np.ndarray:
    return np.repeat([name in names for name in texts.stores], np.diff(texts.first))


def _usable(texts: Texts, offers: dict[str, Candidates], names: set[str]) -> np.ndarray:
    return np.concatenate([offers[name].usable for name in texts.stores]) & _of(texts, names)


def _cached(
    stage: str, decides: dict[str, Any], parent: Path, make: Callable[[], np.ndarray]
) -> np.ndarray:
    """An array that is computed once for what decides it."""
    content = {"format": FORMAT, **decides}
    folder = parent / manifest.fingerprint(content)[:16]

    def work(temporary: Path) -> dict[str, Any]:
        _save(temporary / "documents.npy", make())
        return {}

    print(run_shared(stage, content, folder, work)[1])
    return np.load(folder / "documents.npy", mmap_mode="r")  # type: ignore[no-any-return]


def _save(path: Path, array: np.ndarray) -> None:
    """As `np.save` writes it, which says of a full disk only that it wrote less."""
    array = np.ascontiguousarray(array)
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        file.write(array.data)
        file.flush()
        os.fsync(file.fileno())


def _digest(mask: np.ndarray) -> str:
    return hashlib.sha256(np.packbits(mask).tobytes()).hexdigest()


def _duplicates(
    settings: DuplicatesConfig, texts: Texts, among: np.ndarray, cache: Path
) -> np.ndarray:
    """(documents,) uint8: EXACT, NEAR or 0."""
    by = {key: getattr(settings, key) for key in ("ngram", "permutations", "threshold")}
    decides = {
        "stores": [s.fingerprint for s in texts.stores.values()],
        "among": _digest(among),
        "near": None if settings.near == "off" else by,
    }

    def make() -> np.ndarray:
        sketches = None if settings.near == "off" else _signatures(settings, texts, cache)
        return duplicates.kinds(texts, among, sketches, settings.threshold)

    return _cached("duplicates", decides, cache / "duplicates", make)


def _signatures(settings: DuplicatesConfig, texts: Texts, cache: Path) -> np.ndarray:
    """(documents, permutations) uint32, computed once a store."""
    found = []
    for name, store in texts.stores.items():
        decides = {
            "store": store.fingerprint,
            "ngram": settings.ngram,
            "permutations": settings.permutations,
        }
        one = Texts({name: store})

        def make(one: Texts = one, name: str = name) -> np.ndarray:
            with tqdm(
                total=int(one.length.sum()), unit="tok", unit_scale=True, desc=name, disable=None
            ) as bar:
                return signatures.signatures(
                    one, settings.ngram, settings.permutations, tell=bar.update
                )

        found.append(_cached(f"signatures of {name}", decides, cache / "signatures", make))
    return np.concatenate(found)


def _without_duplicates(
    settings: DuplicatesConfig, texts: Texts, kinds: np.ndarray, offers: dict[str, Candidates]
) -> dict[str, Candidates]:
    found = dict(offers)
    for kind, action, reason in (
        (EXACT, settings.exact, "exact duplicate"),
        (NEAR, settings.near, "near duplicate"),
    ):
        for name, mine in texts.split(kinds == kind).items():
            found[name] = found[name].without(mine, reason) if action == "remove" else found[name]
    return found


def _contamination(
    settings: ContaminationConfig, texts: Texts, training: np.ndarray, cache: Path
) -> tuple[np.ndarray, dict[str, Any]]:
    """(documents,) bool that must leave, and what the ledger says of the documents that stay. Raises: DataError."""
    leave = np.zeros(len(training), dtype=bool)
    if settings.action == "off":
        return leave, {}
    share = contamination.shares(
        texts, _hits(settings.ngram, texts, training, cache), settings.ngram
    )
    if settings.action == "remove":
        leave = training & (share > settings.share)
    if leave.any():  # held-out text is looked for once more, where there was any, in what stays
        training = training & ~leave
        some = training & (share > 0)
        share = contamination.shares(
            texts, _hits(settings.ngram, texts, some, cache), settings.ngram
        )
    if settings.action == "error":
        contamination.refuse(texts, share, settings.ngram, settings.share)
    return leave, contamination.account(texts, training, share, settings.ngram, settings.share)


def _hits(n: int, texts: Texts, training: np.ndarray, cache: Path) -> np.ndarray:
    stores = [s.fingerprint for s in texts.stores.values()]

    def make() -> np.ndarray:
        size = int(texts.length[training].sum())
        with tqdm(
            total=size, unit="tok", unit_scale=True, desc="held-out text", disable=None
        ) as bar:
            return contamination.hits(texts, training, n, tell=bar.update)

    decides = {
        "stores": stores,
        "training": _digest(training),
        "heldout": _digest(texts.held),
        "ngram": n,
    }
    return _cached("contamination", decides, cache / "contamination", make)


def _kept_from(store: Store, leaves: np.ndarray) -> Store:
    """The store without some documents for who reads its training text."""
    return replace(store, heldout=store.heldout | leaves) if leaves.any() else store


def _refuse_emptied(before: dict[str, Candidates], after: dict[str, Candidates]) -> None:
    for name, offer in after.items():
        if before[name].usable.any() and not offer.usable.any():
            reasons = ", ".join(
                f"{reason}: {len(found)}" for reason, found in offer.removed.items()
            )
            raise DataError(
                f"data.sources.{name} is left with no document; a source must keep one for the mixture, and of its "
                f"{int(before[name].usable.sum())} all were removed ({reasons}); leave the source out, or set report instead of "
                "remove in data.duplicates or data.contamination"
            )

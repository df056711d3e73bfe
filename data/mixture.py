"""The plan as the stage makes it: what the sources offer -> shares -> sequences in the cache -> the ledger."""

from pathlib import Path
from typing import Any

import numpy as np

from ropewalk.conf import manifest
from ropewalk.conf.data import SYNTHETIC
from ropewalk.conf.manifest import run_shared
from ropewalk.conf.schema import Config, content
from ropewalk.data import overlong, plan, store
from ropewalk.data.marks import Marks
from ropewalk.data.overlong import Offer
from ropewalk.data.pack import Packed
from ropewalk.data.shares import Share, choose
from ropewalk.data.store import Store

FORMAT = 5  # raise when the bytes of a store or plan change for the same settings


def longest(config: Config, name: str) -> int:
    """The longest piece of a source's documents, tokens."""
    found = config.data.sources[name].piece_len
    return config.data.seq_len if found is None else found


def offered(config: Config, name: str, opened: Store, marks: Marks) -> Offer:
    """What the source gives. One of weight 0 gives nothing, so none of its documents is too long. Raises: DataError."""
    policy = "split" if config.data.sources[name].weight == 0 else config.data.overlong
    return overlong.offer(name, opened, longest(config, name), policy, marks)


def _choices(config: Config, marks: Marks) -> dict[str, Any]:
    """The choices that are not the default: a plan of the defaults keeps its name in the cache when a choice is added."""
    choices = {
        "packer": (config.data.packer, "window_fill"),
        "overlong": (config.data.overlong, "split"),
        "piece_len": ({n: s.piece_len for n, s in config.data.sources.items() if s.piece_len is not None}, {}),
        "begin": (marks.begin, None),
        "end": (marks.end, None),
    }
    return {key: value for key, (value, default) in choices.items() if value != default}


def _removed(offers: dict[str, Offer], budget: dict[str, int | None]) -> dict[str, Any]:
    """Documents that cleaning kept from the mixture, where it would have drawn from them."""
    found = {name: o.removal for name, o in offers.items() if o.removal and budget[name] != 0}
    return {"removed": found} if found else {}


def make(
    config: Config,
    stores: dict[str, Path],
    offers: dict[str, Offer],
    budget: dict[str, int | None],
    marks: Marks,
    cache: Path,
) -> Path:
    """The plan's folder in the cache, written unless it is there. Raises: DataError."""
    decides = {
        "format": FORMAT,
        "stores": [[name, folder.name] for name, folder in stores.items()],  # a list: document numbers go by this order
        "budget": budget,
        "seed": config.seed,
        **{k: content(config.data)[k] for k in ("seq_len", "document_mask", "positions", "min_piece")},
        **_choices(config, marks),
        **_removed(offers, budget),
    }
    folder = cache / "plans" / manifest.fingerprint(decides)[:16]

    def work(temporary: Path) -> dict[str, Any]:
        shares = _shares(config, stores, offers, budget)
        sources = {n: overlong.account(s, store.load(stores[n]), marks) for n, s in shares.items()}
        sequences = _sequences(config, stores, shares)
        plan.write(temporary, sequences)
        marks_taken = sum(s["marks"] for s in sources.values())
        return {
            **plan.describe(sequences, config.data.seq_len, marks_taken, config.data.document_mask),
            **{key: getattr(config.data, key) for key in ("packer", "overlong", "document_mask", "positions")},
            "begin": marks.begin,
            "end": marks.end,
            "sources": sources,
        }

    print(run_shared("plan", decides, folder, work)[1])
    return folder


def _shares(
    config: Config, stores: dict[str, Path], offers: dict[str, Offer], budget: dict[str, int | None]
) -> dict[str, Share]:
    return {
        name: choose(name, o.lengths, o.usable, store.load(stores[name]).key, budget[name], config.seed)
        for name, o in ((n, offers[n]) for n in config.data.sources)
        if budget[name] != 0
    }


def _sequences(config: Config, stores: dict[str, Path], shares: dict[str, Share]) -> Packed:
    whole = {name for name in shares if config.data.sources[name].kind in SYNTHETIC}
    data, lengths = config.data, {name: longest(config, name) for name in shares}
    first = _first_numbers(stores)
    return plan.build(shares, first, data.seq_len, data.min_piece, config.seed, whole, data.packer, lengths)


def _first_numbers(stores: dict[str, Path]) -> dict[str, int]:
    sizes = [len(store.load(folder).length) for folder in stores.values()]
    return dict(zip(stores, np.cumsum([0, *sizes[:-1]]).tolist(), strict=True))


def ledger(stores: dict[str, Path], offers: dict[str, Offer], folder: Path) -> dict[str, Any]:
    """`ledger.json` of a finished plan: what was read, left out and taken, a source a row."""
    facts = dict(manifest.read(folder).facts)  # type: ignore[union-attr]
    mixed = facts.pop("sources")
    rows = {}
    for name, path in stores.items():
        taken = mixed.get(name, {"tokens_in_plan": 0, "marks": 0, "cut": 0, "epochs": 0.0})
        rows[name] = {
            **{k: v for k, v in store.load(path).facts.items() if k != "dtype"},
            "dropped": offers[name].dropped,
            "dropped_documents": offers[name].dropped_documents,
            "removed": overlong.removed(offers[name], store.load(path)),
            "share_in_plan": round(taken["tokens_in_plan"] / max(facts["tokens"], 1), 6),
            **taken,
        }
    return {"schema": 1, "sources": rows, "plan": facts}

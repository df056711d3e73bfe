""""""

from math import ceil, inf
from pathlib import Path
from typing import Any

import numpy as np

from ropewalk.conf.artifacts import manifest
from ropewalk.conf.artifacts.manifest import run_shared
from ropewalk.conf.data_mixture import Rules, rules
from ropewalk.conf.schema import Config, content
from ropewalk.conf.sources import SYNTHETIC
from ropewalk.data.ledger import terminal as told
from ropewalk.data.ledger.entries import PlanStatistics, left_out, prove
from ropewalk.data.mixing import overlong
from ropewalk.data.mixing.offers import _length_weights, _supply, _texts, longest
from ropewalk.data.mixing.overlong import Candidates
from ropewalk.data.mixing.shares import Selection, refuse_repeats
from ropewalk.data.packing import plan
from ropewalk.data.packing.window_fill import Packed
from ropewalk.data.tokens import store
from ropewalk.data.tokens.boundaries import BoundaryTokens

LEFT_OUT = ("dropped", "dropped_documents", "outside_length", "outside_length_documents")

FORMAT = 7  # raise when the bytes of a store or plan change for the same settings


def _plain(found: Rules) -> list[Any]:
    return [
        [span.low, None if span.high == inf else span.high, number] for span, number, _ in found
    ]


def _choices(config: Config, marks: BoundaryTokens) -> dict[str, Any]:
    """The choices that are not the default: a plan of the defaults keeps its name in the cache when a choice is added."""
    data, texts = config.data, _texts(config)
    spans = {n: [data.sources[n].min_len, data.sources[n].max_len] for n in texts}
    weights = {n: _plain(rules(_length_weights(config, n))) for n in texts}
    choices = {
        "packer": (data.packer, "window_fill"),
        "overlong": (data.overlong, "split"),
        "piece_len": (
            {n: s.piece_len for n, s in data.sources.items() if s.piece_len is not None},
            {},
        ),
        "begin": (marks.begin, None),
        "end": (marks.end, None),
        "spans": ({n: span for n, span in spans.items() if span != [None, None]}, {}),
        "length_weights": ({n: found for n, found in weights.items() if found}, {}),
        "buckets": (_plain(rules(data.buckets)), []),
    }
    return {key: value for key, (value, default) in choices.items() if value != default}


def _removed(offers: dict[str, Candidates], budget: dict[str, int | None]) -> dict[str, Any]:
    """Documents that cleaning kept from the mixture, where it would have drawn from them."""
    found = {name: o.removal for name, o in offers.items() if o.removal and budget[name] != 0}
    return {"removed": found} if found else {}


def make(
    config: Config,
    stores: dict[str, Path],
    offers: dict[str, Candidates],
    budget: dict[str, int | None],
    marks: BoundaryTokens,
    cache: Path,
) -> Path:
    """The plan's folder in the cache, written unless it is there. Raises: DataError."""
    decides = {
        "format": FORMAT,
        "stores": [
            [name, folder.name] for name, folder in stores.items()
        ],  # a list: document numbers go by this order
        "heldout": config.data.heldout,
        "budget": budget,
        "seed": config.seed,
        **{
            k: content(config.data)[k]
            for k in ("seq_len", "document_mask", "positions", "min_piece")
        },
        **_choices(config, marks),
        **_removed(offers, budget),
    }
    folder = cache / "plans" / manifest.fingerprint(decides)[:16]

    def work(temporary: Path) -> dict[str, Any]:
        shares, sources = _shares(config, stores, offers, budget, marks)
        sequences = _sequences(config, stores, shares)
        plan.write(temporary, sequences)
        marks_taken = sum(s["marks"] for s in sources.values())
        return {
            **plan.describe(sequences, config.data.seq_len, marks_taken),
            **{
                key: getattr(config.data, key)
                for key in ("packer", "overlong", "document_mask", "positions")
            },
            "begin": marks.begin,
            "end": marks.end,
            "sources": sources,
        }

    if asked := told.mixture(config.data):
        print(asked)
    made, said = run_shared("plan", decides, folder, work)
    for name, row in made.facts["sources"].items():  # a plan that was made when more was allowed
        refuse_repeats(name, row["repeats"], row["epochs"], config.data.max_epochs)
    print(said)
    return folder


def _shares(
    config: Config,
    stores: dict[str, Path],
    offers: dict[str, Candidates],
    budget: dict[str, int | None],
    marks: BoundaryTokens,
) -> tuple[dict[str, Selection], dict[str, Any]]:
    """The sources' shares, and what the ledger says of them. Raises: DataError."""
    shares, facts = {}, {}
    for name in [name for name in config.data.sources if budget[name] != 0]:
        opened = store.load(stores[name], config.data.heldout)
        given = _supply(config, name, offers[name], opened, marks)
        epochs = (budget[name] or 0) / max(given.total, 1)
        refuse_repeats(
            name, ceil(epochs), epochs, config.data.max_epochs
        )  # before there are arrays of so many takings
        shares[name] = given.take(budget[name])
        refuse_repeats(name, shares[name].repeats, shares[name].epochs, config.data.max_epochs)
        facts[name] = {
            **overlong.ledger_row(shares[name], opened, marks),
            **given.told(budget[name]),
        }
    return shares, facts


def _sequences(config: Config, stores: dict[str, Path], shares: dict[str, Selection]) -> Packed:
    whole = {name for name in shares if config.data.sources[name].kind in SYNTHETIC}
    data, lengths = config.data, {name: longest(config, name) for name in shares}
    first = _first_numbers(stores)
    return plan.build(
        shares, first, data.seq_len, data.min_piece, config.seed, whole, data.packer, lengths
    )


def _first_numbers(stores: dict[str, Path]) -> dict[str, int]:
    sizes = [len(store.load(folder, heldout=0.0).length) for folder in stores.values()]
    return dict(zip(stores, np.cumsum([0, *sizes[:-1]]).tolist(), strict=True))


def ledger(
    config: Config, stores: dict[str, Path], offers: dict[str, Candidates], folder: Path
) -> dict[str, Any]:
    """`ledger.json` of a finished plan: what was read, left out and taken, a source a row.

    Raises: ProofError when the plan does not hold what the mixture took.
    """
    facts = dict(manifest.read(folder).facts)  # type: ignore[union-attr]
    mixed = facts.pop("sources")
    opened = {name: store.load(path, config.data.heldout) for name, path in stores.items()}
    counted, entries = PlanStatistics.of(folder, opened, facts).entries()
    rows = {}
    for name, there in opened.items():
        taken = mixed.get(
            name, {"tokens_in_plan": 0, "marks": 0, "cut": 0, "epochs": 0.0, "repeats": 0}
        )
        rows[name] = {
            **{k: v for k, v in there.metadata.items() if k not in ("dtype", "shards")},
            **there.heldout_counts(),
            **{key: getattr(offers[name], key) for key in LEFT_OUT},
            "removed": overlong.removed(offers[name], there),
            "share_in_plan": round(taken["tokens_in_plan"] / max(facts["tokens"], 1), 6),
            **taken,
            **entries[name],
        }
        prove(name, rows[name])
        rows[name]["left_out"] = left_out(rows[name])
    return {"schema": 1, "sources": rows, "plan": facts | counted}

"""The documents that cleaning keeps from the mixture and the fillers, on stores of known tokens."""

import random
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stores import in_memory

from ropewalk.conf.artifacts import manifest
from ropewalk.conf.cleaning import ContaminationConfig, DuplicatesConfig
from ropewalk.conf.data import DataConfig
from ropewalk.conf.errors import ConfigError, DataError
from ropewalk.conf.rules import problems
from ropewalk.conf.sources import SourceConfig
from ropewalk.data.cleaning import clean
from ropewalk.data.cleaning.clean import Cleaned
from ropewalk.data.mixing import overlong
from ropewalk.data.tokens.store import BoundaryTokens, Store

Ids = list[int]


def tokens(length: int, seed: int) -> Ids:
    rng = random.Random(seed)
    return [rng.randrange(5000) for _ in range(length)]


def edited(ids: Ids) -> Ids:
    return [*ids[:100], *tokens(10, 99), *ids[110:]]


def store_of(documents: list[Ids], heldout: frozenset[int] = frozenset()) -> Store:
    fingerprint = manifest.fingerprint([documents, sorted(heldout)])
    return in_memory(documents, [i in heldout for i in range(len(documents))], fingerprint)


def cleaned(
    cache: Path,
    stores: dict[str, Store],
    sources: dict[str, SourceConfig] | None = None,
    duplicates: dict[str, Any] | None = None,
    contamination: dict[str, Any] | None = None,
    policy: str = "split",
) -> Cleaned:
    data = DataConfig(
        seq_len=250,
        sources=sources or {name: SourceConfig(path=name) for name in stores},
        duplicates=DuplicatesConfig(**duplicates or {}),
        contamination=ContaminationConfig(**contamination or {}),
    )
    assert not list(problems(data, "data."))
    offers = {
        n: overlong.candidates(n, s, data.seq_len, policy, BoundaryTokens())
        for n, s in stores.items()
    }
    return clean.clean(data, stores, offers, cache)


def usable(result: Cleaned) -> dict[str, list[int]]:
    return {name: np.flatnonzero(o.usable).tolist() for name, o in result.offers.items()}


def removed(result: Cleaned) -> dict[str, dict[str, list[int]]]:
    return {
        name: {r: k.tolist() for r, k in o.removed.items()} for name, o in result.offers.items()
    }


A, B, C = tokens(200, 1), tokens(200, 2), tokens(200, 3)
TWINS = {"one": store_of([A, B, A]), "two": store_of([C, edited(B), A])}
REMOVE = {"exact": "remove", "near": "remove"}


def test_duplicates_are_reported_and_stay_by_default(tmp_path: Path) -> None:
    result = cleaned(tmp_path, TWINS)
    assert usable(result) == {"one": [0, 1, 2], "two": [0, 1, 2]}
    assert result.offers["one"].removed_digest is None
    counts = {
        "exact_documents": 1,
        "exact_tokens": 200,
        "near_documents": None,
        "near_tokens": None,
    }
    assert result.source_entries == {"one": {"duplicates": counts}, "two": {"duplicates": counts}}


def test_removed_duplicates_are_listed_by_reason(tmp_path: Path) -> None:
    result = cleaned(tmp_path, TWINS, duplicates=REMOVE)
    assert usable(result) == {"one": [0, 1], "two": [0]}
    assert removed(result) == {
        "one": {"exact duplicate": [2]},
        "two": {"exact duplicate": [2], "near duplicate": [1]},
    }
    assert result.source_entries["two"]["duplicates"]["near_documents"] == 1
    counts = overlong.removed_counts(result.offers["two"], TWINS["two"])
    assert counts == {
        "exact duplicate": {"documents": 1, "tokens": 200},
        "near duplicate": {"documents": 1, "tokens": 200},
    }


def test_the_first_source_keeps_its_copy(tmp_path: Path) -> None:
    first, second = store_of([A, tokens(99, 5)]), store_of([tokens(98, 6), A])
    assert usable(cleaned(tmp_path, {"one": first, "two": second}, duplicates=REMOVE)) == {
        "one": [0, 1],
        "two": [0],
    }
    assert usable(cleaned(tmp_path, {"two": second, "one": first}, duplicates=REMOVE)) == {
        "two": [0, 1],
        "one": [1],
    }


def test_a_copy_outside_the_mixture_removes_no_other_document(tmp_path: Path) -> None:
    """Held out, in a source of weight 0, or dropped because it is too long."""
    stores = {"one": store_of([A, B], frozenset({0})), "two": store_of([A])}
    off: dict[str, Any] = {"contamination": {"action": "off"}, "duplicates": REMOVE}
    assert usable(cleaned(tmp_path, stores, **off)) == {"one": [1], "two": [0]}
    weights = {"one": SourceConfig(path="one", weight=0), "two": SourceConfig(path="two", weight=1)}
    twice = {"one": store_of([A]), "two": store_of([A])}
    assert usable(cleaned(tmp_path, twice, weights, **off)) == {"one": [0], "two": [0]}
    long = tokens(300, 7)
    result = cleaned(tmp_path, {"one": store_of([long, A, long])}, policy="drop", **off)
    assert usable(result) == {"one": [1]}


LEAK = {
    "one": store_of([A, B, C], frozenset({0})),
    "two": store_of([[*tokens(100, 8), *A[:150]], tokens(200, 9), A]),
}


def test_held_out_text_is_reported_and_stays(tmp_path: Path) -> None:
    result = cleaned(tmp_path, LEAK)
    assert usable(result) == {"one": [1, 2], "two": [0, 1, 2]}
    section = result.ledger_entries["contamination"]
    assert section["action"] == "report" and section["training"]["contaminated"] == 2
    assert section["heldout"]["dirty"] == [{"source": "one", "document": "0.txt", "share": 1.0}]
    assert result.stores["two"] is LEAK["two"]


def test_removing_training_documents_cleans_the_held_out_ones(tmp_path: Path) -> None:
    result = cleaned(tmp_path, LEAK, contamination={"action": "remove"})
    assert usable(result) == {"one": [1, 2], "two": [1]}
    assert removed(result) == {"one": {}, "two": {"held-out text": [0, 2]}}
    section = result.ledger_entries["contamination"]
    assert (
        section["heldout"]["touched"],
        section["heldout"]["dirty"],
        section["training"]["contaminated"],
    ) == (0, [], 0)
    assert section["training"]["documents"] == 3


def test_remaining_overlap_is_counted_after_a_removal(tmp_path: Path) -> None:
    """At 0.6 only the full copy is removed; 150 of A's 200 tokens remain (119 of 219 n-grams)."""
    result = cleaned(tmp_path, LEAK, contamination={"action": "remove", "share": 0.6})
    assert removed(result)["two"] == {"held-out text": [2]}
    section = result.ledger_entries["contamination"]
    assert section["training"]["worst"] == [
        {"source": "two", "document": "0.txt", "share": round(119 / 219, 4)}
    ]
    assert section["heldout"]["dirty"] == [
        {"source": "one", "document": "0.txt", "share": round(119 / 169, 4)}
    ]


def test_error_refuses_and_off_does_not_search(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"^data\.contamination\.action is error; .* 0\.txt of source one has 100%"
    ):
        cleaned(tmp_path, LEAK, contamination={"action": "error"})
    assert cleaned(tmp_path, LEAK, contamination={"action": "off"}).ledger_entries == {
        "contamination": {"action": "off"}
    }
    clean = {"one": store_of([A, B], frozenset({0}))}
    assert (
        cleaned(tmp_path, clean, contamination={"action": "error"}).ledger_entries["contamination"][
            "heldout"
        ]["touched"]
        == 0
    )


def test_held_out_text_is_also_removed_from_fillers(tmp_path: Path) -> None:
    """Also a filler of weight 0, unless no synthetic source that it fills has a weight."""
    store = store_of([A, B, A], frozenset({0}))
    filled = SourceConfig(kind="repeat", filler="one", weight=1)
    sources = {"one": SourceConfig(path="one", weight=0), "made": filled}
    result = cleaned(tmp_path, {"one": store}, sources, contamination={"action": "remove"})
    assert result.stores["one"].heldout.tolist() == [True, False, True]
    assert (
        result.stores["one"].fingerprint == store.fingerprint
        and result.stores["one"].heldout_digest != store.heldout_digest
    )
    sources["made"] = replace(filled, weight=0)
    sources["two"] = SourceConfig(path="two", weight=1)
    result = cleaned(
        tmp_path, {"one": store, "two": store_of([C])}, sources, contamination={"action": "remove"}
    )
    assert result.stores["one"].heldout.tolist() == [True, False, False]


def test_source_that_loses_all_documents_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        cleaned(
            tmp_path, {"one": store_of([A, B]), "two": store_of([B, edited(A)])}, duplicates=REMOVE
        )
    assert str(error.value).startswith("data.sources.two is left with no document; ")
    assert "of its 2 all were removed (exact duplicate: 1, near duplicate: 1)" in str(error.value)


def test_results_are_cached(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = cleaned(tmp_path, LEAK, duplicates={"near": "report"})
    assert "skipped" not in capsys.readouterr().out
    again = cleaned(tmp_path, LEAK, duplicates={"near": "report"})
    assert capsys.readouterr().out.count("skipped") == 2
    assert (first.source_entries, first.ledger_entries) == (
        again.source_entries,
        again.ledger_entries,
    )
    cleaned(tmp_path, LEAK, duplicates={"near": "report", "threshold": 0.7})
    assert capsys.readouterr().out.count("signatures of") == 2  # of both sources, once a store
    assert len(list((tmp_path / "signatures").iterdir())) == 2 + 2  # and their locks


def test_wrong_settings_are_reported(tmp_path: Path) -> None:
    near = DuplicatesConfig(near="remove", threshold=0.1, ngram=0, permutations=8)
    contamination = ContaminationConfig(action="False", share=1.0, ngram=0)
    lines = [*problems(near, "d."), *problems(contamination, "c.")]
    assert [line.split(";")[0] for line in lines] == [
        "d.threshold is 0.1",
        "d.ngram is 0",
        "d.permutations is 8",
        "d.near is remove",
        "c.action is False",
        "c.ngram is 0",
        "c.share is 1.0",
    ]
    assert lines[4].endswith('write "off" in quotes')


def test_missing_package_is_refused_only_where_it_is_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "datasketch", None)
    clean.require_packages(DataConfig(seq_len=8))
    with pytest.raises(ConfigError, match="dedup"):
        clean.require_packages(DataConfig(seq_len=8, duplicates=DuplicatesConfig(near="report")))

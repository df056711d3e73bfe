"""What cleaning keeps from the mixture and from the fillers, on stores made of known texts."""

import random
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ropewalk.conf.artifacts import manifest
from ropewalk.conf.cleaning import ContaminationConfig, DuplicatesConfig
from ropewalk.conf.data import DataConfig
from ropewalk.conf.errors import ConfigError, DataError
from ropewalk.conf.sources import SourceConfig
from ropewalk.data.cleaning import clean
from ropewalk.data.cleaning.clean import Cleaned
from ropewalk.data.mixing import overlong
from ropewalk.data.tokens.boundaries import BoundaryTokens
from ropewalk.data.tokens.store import Store

Text = list[int]


def words(length: int, seed: int) -> Text:
    rng = random.Random(seed)
    return [rng.randrange(5000) for _ in range(length)]


def edited(text: Text) -> Text:
    return [*text[:100], *words(10, 99), *text[110:]]


def store_of(texts: list[Text], heldout: set[int] = frozenset()) -> Store:  # type: ignore[assignment]
    lengths = np.array([len(t) for t in texts], dtype=np.int64)
    offsets = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)
    tokens, count = (
        np.array([token for text in texts for token in text], dtype=np.uint16),
        len(texts),
    )
    ids, key = [f"{i}.txt" for i in range(count)], np.arange(count, dtype=np.uint64)
    held = np.isin(np.arange(count), list(heldout))
    return Store(
        tokens, offsets, lengths, held, key, ids, {}, manifest.fingerprint([texts, sorted(heldout)])
    )


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
    assert not list(data.problems())
    offers = {
        n: overlong.offer(n, s, data.seq_len, policy, BoundaryTokens()) for n, s in stores.items()
    }
    return clean.clean(data, stores, offers, cache)


def usable(found: Cleaned) -> dict[str, list[int]]:
    return {name: np.flatnonzero(o.usable).tolist() for name, o in found.offers.items()}


def removed(found: Cleaned) -> dict[str, dict[str, list[int]]]:
    return {name: {r: k.tolist() for r, k in o.removed.items()} for name, o in found.offers.items()}


A, B, C = words(200, 1), words(200, 2), words(200, 3)
TWINS = {"one": store_of([A, B, A]), "two": store_of([C, edited(B), A])}
REMOVE = {"exact": "remove", "near": "remove"}


def test_duplicates_are_told_and_stay_unless_they_are_to_be_removed(tmp_path: Path) -> None:
    found = cleaned(tmp_path, TWINS)
    assert usable(found) == {"one": [0, 1, 2], "two": [0, 1, 2]}
    assert found.offers["one"].removal is None
    told = {"exact_documents": 1, "exact_tokens": 200, "near_documents": None, "near_tokens": None}
    assert found.rows == {"one": {"duplicates": told}, "two": {"duplicates": told}}


def test_removed_duplicates_leave_by_their_reason(tmp_path: Path) -> None:
    found = cleaned(tmp_path, TWINS, duplicates=REMOVE)
    assert usable(found) == {"one": [0, 1], "two": [0]}
    assert removed(found) == {
        "one": {"exact duplicate": [2]},
        "two": {"exact duplicate": [2], "near duplicate": [1]},
    }
    assert found.rows["two"]["duplicates"]["near_documents"] == 1
    told = overlong.removed(found.offers["two"], TWINS["two"])
    assert told == {
        "exact duplicate": {"documents": 1, "tokens": 200},
        "near duplicate": {"documents": 1, "tokens": 200},
    }


def test_the_first_source_keeps_its_copy(tmp_path: Path) -> None:
    one, two = store_of([A, words(99, 5)]), store_of([words(98, 6), A])
    assert usable(cleaned(tmp_path, {"one": one, "two": two}, duplicates=REMOVE)) == {
        "one": [0, 1],
        "two": [0],
    }
    assert usable(cleaned(tmp_path, {"two": two, "one": one}, duplicates=REMOVE)) == {
        "two": [0, 1],
        "one": [1],
    }


def test_a_copy_that_the_mixture_does_not_take_removes_no_other(tmp_path: Path) -> None:
    """Held out, in a source of weight 0, or dropped because it is too long."""
    held = {"one": store_of([A, B], {0}), "two": store_of([A])}
    off = {"contamination": {"action": "off"}, "duplicates": REMOVE}
    assert usable(cleaned(tmp_path, held, **off)) == {"one": [1], "two": [0]}  # type: ignore[arg-type]
    weights = {"one": SourceConfig(path="one", weight=0), "two": SourceConfig(path="two", weight=1)}
    twice = {"one": store_of([A]), "two": store_of([A])}
    assert usable(cleaned(tmp_path, twice, weights, **off)) == {"one": [0], "two": [0]}  # type: ignore[arg-type]
    long = words(300, 7)
    assert usable(cleaned(tmp_path, {"one": store_of([long, A, long])}, policy="drop", **off)) == {
        "one": [1]
    }  # type: ignore[arg-type]


LEAK = {
    "one": store_of([A, B, C], {0}),
    "two": store_of([[*words(100, 8), *A[:150]], words(200, 9), A]),
}


def test_held_out_text_is_told_and_stays(tmp_path: Path) -> None:
    found = cleaned(tmp_path, LEAK)
    assert usable(found) == {"one": [1, 2], "two": [0, 1, 2]}
    told = found.facts["contamination"]
    assert told["action"] == "report" and told["training"]["contaminated"] == 2
    assert told["heldout"]["dirty"] == [{"source": "one", "document": "0.txt", "share": 1.0}]
    assert found.stores["two"] is LEAK["two"]


def test_removed_training_documents_leave_held_out_ones_clean(tmp_path: Path) -> None:
    found = cleaned(tmp_path, LEAK, contamination={"action": "remove"})
    assert usable(found) == {"one": [1, 2], "two": [1]}
    assert removed(found) == {"one": {}, "two": {"held-out text": [0, 2]}}
    told = found.facts["contamination"]
    assert (
        told["heldout"]["touched"],
        told["heldout"]["dirty"],
        told["training"]["contaminated"],
    ) == (0, [], 0)
    assert told["training"]["documents"] == 3


def test_what_stays_after_a_removal_is_still_counted(tmp_path: Path) -> None:
    """At 0.6 only the whole copy leaves; 150 of A's 200 tokens stand in a document that stays (119 of 219 n-grams)."""
    found = cleaned(tmp_path, LEAK, contamination={"action": "remove", "share": 0.6})
    assert removed(found)["two"] == {"held-out text": [2]}
    told = found.facts["contamination"]
    assert told["training"]["worst"] == [
        {"source": "two", "document": "0.txt", "share": round(119 / 219, 4)}
    ]
    assert told["heldout"]["dirty"] == [
        {"source": "one", "document": "0.txt", "share": round(119 / 169, 4)}
    ]


def test_error_refuses_and_off_does_not_look(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"^data\.contamination\.action is error; .* 0\.txt of source one has 100%"
    ):
        cleaned(tmp_path, LEAK, contamination={"action": "error"})
    assert cleaned(tmp_path, LEAK, contamination={"action": "off"}).facts == {
        "contamination": {"action": "off"}
    }
    clean = {"one": store_of([A, B], {0})}
    assert (
        cleaned(tmp_path, clean, contamination={"action": "error"}).facts["contamination"][
            "heldout"
        ]["touched"]
        == 0
    )


def test_fillers_are_cleaned_of_held_out_text_too(tmp_path: Path) -> None:
    """Also one of weight 0, which gives the mixture nothing but surroundings; without a filled source it does not count."""
    store = store_of([A, B, A], {0})
    made = SourceConfig(kind="repeat", filler="one", weight=1)
    sources = {"one": SourceConfig(path="one", weight=0), "made": made}
    found = cleaned(tmp_path, {"one": store}, sources, contamination={"action": "remove"})
    assert found.stores["one"].heldout.tolist() == [True, False, True]
    assert (
        found.stores["one"].fingerprint == store.fingerprint
        and found.stores["one"].held != store.held
    )
    sources["made"] = replace(made, weight=0)
    sources["two"] = SourceConfig(path="two", weight=1)
    found = cleaned(
        tmp_path, {"one": store, "two": store_of([C])}, sources, contamination={"action": "remove"}
    )
    assert found.stores["one"].heldout.tolist() == [True, False, False]


def test_source_that_is_left_with_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError) as said:
        cleaned(
            tmp_path, {"one": store_of([A, B]), "two": store_of([B, edited(A)])}, duplicates=REMOVE
        )
    assert str(said.value).startswith("data.sources.two is left with no document; ")
    assert "of its 2 all were removed (exact duplicate: 1, near duplicate: 1)" in str(said.value)


def test_what_was_found_is_found_again_in_the_cache(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = cleaned(tmp_path, LEAK, duplicates={"near": "report"})
    assert "skipped" not in capsys.readouterr().out
    again = cleaned(tmp_path, LEAK, duplicates={"near": "report"})
    assert capsys.readouterr().out.count("skipped") == 2
    assert (first.rows, first.facts) == (again.rows, again.facts)
    cleaned(tmp_path, LEAK, duplicates={"near": "report", "threshold": 0.7})
    assert capsys.readouterr().out.count("signatures of") == 2  # both found, computed once a store
    assert len(list((tmp_path / "signatures").iterdir())) == 2 + 2  # and their locks


def test_settings_that_cannot_be_are_told(tmp_path: Path) -> None:
    near = DuplicatesConfig(near="remove", threshold=0.1, ngram=0, permutations=8)
    lines = list(near.problems("d")) + list(
        ContaminationConfig(action="False", share=1.0, ngram=0).problems("c")
    )
    assert [line.split(";")[0] for line in lines] == [
        "d.near is remove",
        "d.threshold is 0.1",
        "d.ngram is 0",
        "d.permutations is 8",
        "c.action is False",
        "c.ngram is 0",
        "c.share is 1.0",
    ]
    assert lines[4].endswith('write "off" in quotes')


def test_missing_package_is_refused_only_where_it_is_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "datasketch", None)
    clean.require(DataConfig(seq_len=8))
    with pytest.raises(ConfigError, match="dedup"):
        clean.require(DataConfig(seq_len=8, duplicates=DuplicatesConfig(near="report")))

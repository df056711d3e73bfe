"""What cannot be asked is refused with its reason, or is a row without a value."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ruler_suite
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.conf.errors import ConfigError, DataError
from ropewalk.conf.eval_ruler import CONFIGURATIONS, RulerConfig
from ropewalk.conf.rules import problems
from ropewalk.eval.preflight import ruler_problems
from ropewalk.eval.requests import Reply
from ropewalk.eval.ruler import fitting, harness, words
from ropewalk.eval.ruler.configurations import ALL, GROUPS
from ropewalk.eval.ruler.draft import CannotFit
from ropewalk.eval.ruler.inputs import identity, read
from ropewalk.eval.tasks.ruler import Ruler
from ropewalk.eval.tasks.task import Measured


def samples(**settings_: Any) -> Any:
    return Ruler().samples(ruler_suite.suite(**settings_))


def refused(error: type[Exception], *parts: str, **settings_: Any) -> None:
    with pytest.raises(error) as caught:
        samples(**settings_)
    for part in parts:
        assert part in str(caught.value)


def test_a_configuration_by_name_needs_its_data(files: dict[str, str]) -> None:
    for name, key in (("qa_1", "squad"), ("qa_2", "hotpotqa")):
        refused(
            DataError, f"eval.ruler.configurations is ['{name}']", f"set eval.ruler.{key}=FILE",
            configurations=[name], lengths=[6000], samples=1,
        )  # fmt: skip


def test_one_of_a_group_without_its_data_is_a_row_without_a_value(files: dict[str, str]) -> None:
    suite = ruler_suite.suite(
        configurations=["all"], lengths=[5000], samples=1, haystack=files["haystack"]
    )
    made = Ruler().samples(suite)
    replies = [(Reply(0, 0.0, (5,)),) for _ in made]
    rows = {r["configuration"]: r for r in Ruler().rows(Measured(suite, made, replies))}
    assert len(made) == 11 and rows["mean"]["configurations"] == 11
    for name, key in (("qa_1", "squad"), ("qa_2", "hotpotqa")):
        assert rows[name]["accuracy"] is rows[name]["low"] is None and rows[name]["n"] == 0
        assert rows[name]["reason"].startswith("not measurable") and key in rows[name]["reason"]
    assert all(list(r) == list(rows["mean"]) for r in rows.values())
    none = ruler_suite.suite(window=64, length=128, configurations=["smoke"], samples=2)
    assert [r["n"] for r in Ruler().rows(Measured(none, Ruler().samples(none), []))] == [0] * 4


def test_a_length_by_name_must_fit_and_a_default_one_is_a_row_without_a_value() -> None:
    refused(
        DataError, "eval.ruler.lengths is [128]", "smallest prompt has", "128 out",
        configurations=["smoke"], lengths=[128], samples=1,
    )  # fmt: skip
    suite = ruler_suite.suite(window=128, length=1024, configurations=["smoke"], samples=2)
    made = Ruler().samples(suite)
    assert {s.facts["length"] for s in made} == {512, 1024}
    rows = Ruler().rows(Measured(suite, made, [(Reply(0, 0.0, ()),) for _ in made]))
    empty = [(r["configuration"], r["length"]) for r in rows if r["n"] == 0]
    assert {(name, length) for name in GROUPS["smoke"] for length in (128, 256)} <= set(empty)
    assert all("tokens" in r["reason"] for r in rows if r["n"] == 0)


def test_a_haystack_that_is_too_short_is_not_repeated_unsaid(tmp_path: Path) -> None:
    text = tmp_path / "short.txt"
    text.write_text("A short text. It has few words. That is all.")
    refused(
        DataError, "niah_single_2 cannot be asked at 3,000", "haystack is used up after",
        configurations=["niah_single_2"], lengths=[3000], samples=1, haystack=str(text),
    )  # fmt: skip


def test_a_tokenizer_that_loses_an_answer_is_refused() -> None:
    suite = ruler_suite.suite(configurations=["niah_single_1"], lengths=[1024], samples=1)
    kept = suite.decode
    assert kept is not None
    deaf = dataclasses.replace(suite, decode=lambda ids: kept(ids).translate({ord("7"): "1"}))
    with pytest.raises(DataError, match="decodes it as .*leave niah_single_1 out"):
        for seed in range(8):  # some answer has a 7
            Ruler().samples(dataclasses.replace(deaf, seed=seed))


def test_more_samples_than_questions_are_refused(files: dict[str, str]) -> None:
    refused(
        DataError, "questions in all; lower eval.ruler.samples",
        configurations=["qa_2"], lengths=[2500], samples=31, hotpotqa=files["hotpotqa"],
    )  # fmt: skip


@pytest.mark.parametrize("key", ["haystack", "words", "wording", "squad", "hotpotqa"])
def test_a_file_that_cannot_be_read_is_refused_by_its_setting(key: str, tmp_path: Path) -> None:
    configurations = {"squad": ["qa_1"], "hotpotqa": ["qa_2"]}.get(key, ["niah_single_2"])
    for name, text in (("missing", None), ("empty.json", ""), ("list.json", "[1, 2]")):
        path = tmp_path / name
        if text is not None:
            path.write_text(text)
        if key in ("haystack", "words") and text == "[1, 2]":
            continue  # a text like any other
        refused(
            (ConfigError, DataError), f"eval.ruler.{key} is {path}",
            configurations=configurations, lengths=[2000], samples=1, **{key: str(path)},
        )  # fmt: skip


def test_a_wording_with_a_missing_or_unknown_field_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "texts.yaml"
    for change, reason in (
        ({"cwe": "no list"}, "cwe is filled with"),
        ({"needle": "{key} {value} {extra}"}, "needle is filled with"),
        ({"niah_one": "{context} {query} {"}, "niah_one"),
        ({"vt": None}, "has no text vt"),
        ({"other": "x"}, "leave it out"),
    ):
        path.write_text(yaml.safe_dump(ruler_suite.THEIRS | change))
        refused(ConfigError, reason, configurations=["smoke"], lengths=[1024], wording=str(path))


def test_mode_ruler_without_the_harness_names_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harness, "PACKAGE", "no_such_package")
    refused(
        ConfigError, "pip install 'ropewalk[eval]'", "eval.ruler.mode=ruler_exact",
        mode="ruler", configurations=["smoke"], lengths=[2048],
    )  # fmt: skip


def test_without_wonderwords_words_are_pronounceable_and_the_rows_say_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(words, "PACKAGE", "no_such_package")
    (sample,) = samples(configurations=["niah_single_1"], lengths=[1024], samples=1)
    assert sample.facts["words"] == "pronounceable words 1" and sample.facts["words_hash"]
    every = [*words.pronounceable()]
    assert len(every) == len(set(every)) > 50_000 and all(w.isalpha() for w in every)


def test_shots_are_refused_in_mode_ruler() -> None:
    (line,) = problems(RulerConfig(mode="ruler", shots=2), "eval.ruler.")
    assert "eval.ruler.shots is 2" in line and "mode=ruler_exact" in line


def test_the_settings_name_every_configuration_and_group() -> None:
    assert set(CONFIGURATIONS) == {*GROUPS, *ALL} and len(ALL) == 13


def test_rulers_essays_are_named_as_published_numbers_name_them(tmp_path: Path) -> None:
    path = tmp_path / "PaulGrahamEssays.json"
    path.write_text(json.dumps({"text": "An essay.\n\nIt is short."}))
    made = read(RulerConfig(haystack=str(path)), [ALL["niah_single_2"]], list)
    assert made.prose is not None and made.prose.sentences == ("An essay.", "It is short.")
    assert made.haystack_of(ALL["niah_single_2"])[0] == "paul graham essays"


@given(
    seed=st.integers(0, 10_000), least=st.integers(1, 50), span=st.integers(0, 3000),
    room=st.integers(0, 20_000), each=st.floats(0, 30),
)  # fmt: skip
@settings(max_examples=300, deadline=None)
def test_the_largest_size_is_found_for_any_growth_of_tokens(
    seed: int, least: int, span: int, room: int, each: float
) -> None:
    """Counts that never fall, in uneven steps: against a search of all sizes; few are tried."""
    rng = np.random.Generator(np.random.PCG64(seed))
    counts = np.cumsum(rng.poisson(each, least + span + 2))
    tried = []

    def tokens(size: int) -> int:
        tried.append(size)
        return int(counts[size])

    fitting_sizes = [n for n in range(least, least + span + 1) if counts[n] <= room]
    if not fitting_sizes:
        with pytest.raises(CannotFit):
            fitting.largest(tokens, room, least, least + span)
        return
    found = fitting.largest(tokens, room, least, least + span)
    assert found == fitting_sizes[-1] and len(tried) <= 40


def test_what_is_known_before_there_is_text_is_told_then(tmp_path: Path) -> None:
    """Lengths beyond what the models are measured at, and files that settings name."""
    (line,) = ruler_problems(RulerConfig(lengths=[512, 9000], configurations=["all"]), 4096)
    assert line.startswith("eval.ruler.lengths has 9000; it must be at most") and "4096" in line
    for key in ("wording", "words", "haystack", "squad", "hotpotqa"):
        settings_ = RulerConfig(configurations=["all"], **{key: str(tmp_path / "none")})
        (line,) = ruler_problems(settings_, 4096)
        assert line.startswith(f"eval.ruler.{key} is")


def test_a_file_of_other_content_is_another_measurement(tmp_path: Path) -> None:
    """Of each file that a setting names; its name and place do not matter."""
    for key, one, other in (
        ("haystack", "One text. Two.", "One text. Three."),
        ("words", "\n".join(map(str, range(200))), "\n".join(map(str, range(201)))),
        ("wording", yaml.safe_dump(ruler_suite.THEIRS), yaml.safe_dump(wording_with("x."))),
    ):
        found = []
        for name, text in (("a.txt", one), ("b/a.txt", one), ("c/a.txt", other)):
            path = tmp_path / key / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            found.append(identity(RulerConfig(**{key: str(path)})))
        assert found[0] == found[1] != found[2], key


def wording_with(noise: str) -> dict[str, str]:
    return ruler_suite.THEIRS | {"noise": noise}


@pytest.mark.parametrize(
    ("mode", "shots", "good"),
    [
        ("ruler", None, True),
        ("ruler", 0, False),
        ("ruler_exact", 2, True),
        ("ruler_exact", None, 1),
    ],
)
def test_shots_are_a_choice_of_exact_prompts_alone(
    mode: str, shots: int | None, good: bool
) -> None:
    assert (list(problems(RulerConfig(mode=mode, shots=shots), "eval.ruler.")) == []) is bool(good)

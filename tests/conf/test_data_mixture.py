"""Settings of the mixture: ranges of lengths, the line of each rule, presets as in their papers."""

import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ropewalk.conf.check import load, to_yaml
from ropewalk.conf.data import DataConfig
from ropewalk.conf.data_mixture import parse, rules
from ropewalk.conf.errors import ConfigError
from ropewalk.conf.rules import problems as rule_problems
from ropewalk.conf.sources import SourceConfig
from ropewalk.launch.config.compose import compose

GOOD = [
    "recipe=custom",
    "model.path=./m",
    "rope.factor=4",
    "data.seq_len=524288",
    "train.steps=1",
    "train.optimizer.lr=1e-4",
]
MINE = [*GOOD, "data.sources.mine.path=./mine"]


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("<4K", 1, 4096),
        ("<=4K", 1, 4097),
        (">8K", 8193, math.inf),
        (">=8K", 8192, math.inf),
        ("4K-8K", 4096, 8192),
        ("4k - 1m", 4096, 1 << 20),
        ("100-200", 100, 200),
        ("0-10", 1, 10),
        (">=0", 1, math.inf),
        (" >= 1M ", 1 << 20, math.inf),
    ],
)
def test_ranges_by_hand(text: str, low: int, high: float) -> None:
    assert parse(text) == (low, high)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "4K",
        "<",
        "8K-4K",
        "4K-4K",
        "<1",
        "<0",
        "<=0",
        "-4K",
        "<-4",
        "<4.5K",
        "4K-",
        "<4G",
        "=4",
        "a",
        "<4K5",
    ],
)
def test_text_that_is_no_range(text: str) -> None:
    assert parse(text) is None


@given(st.integers(0, 3000), st.integers(0, 3000), st.integers(1, 3100))
def test_ranges_contain_the_lengths_that_their_signs_mean(
    first: int, second: int, length: int
) -> None:
    expected = {
        f"<{first}": length < first,
        f"<={first}": length <= first,
        f">{first}": length > first,
        f">={first}": length >= first,
        f"{first}-{second}": first <= length < second,
    }
    for text, inside in expected.items():
        span = parse(text)
        assert (span is not None and span.low <= length < span.high) == inside


def test_rules_are_sorted_by_length_and_keep_their_text() -> None:
    assert rules({">8K": 2.0, "<4K": 0.1}) == [
        ((1, 4096), 0.1, "<4K"),
        ((8193, math.inf), 2.0, ">8K"),
    ]


INF, NAN = math.inf, math.nan
WRONG: list[tuple[dict, str]] = [
    (
        {"length_weights": {"4K": 1}},
        r"^data\.length_weights has 4K; a range of lengths is written <4K, <=4K",
    ),
    (
        {"length_weights": {"<4K": 1, "3K-5K": 2}},
        r"^data\.length_weights has <4K and 3K-5K; ranges must not share a length",
    ),
    ({"length_weights": {"<=4K": 1, ">=4K": 2}}, r"has <=4K and >=4K; ranges must not share"),
    (
        {"length_weights": {"<4K": -0.1}},
        r"^data\.length_weights\.<4K is -0\.1; .* at least 0 and at most 1000; e\.g\. 0\.1",
    ),
    ({"length_weights": {"<4K": NAN}}, r"^data\.length_weights\.<4K is nan"),
    ({"length_weights": {"<4K": INF}}, r"^data\.length_weights\.<4K is inf"),
    (
        {"length_weights": {"<4K": 0.0001}},
        r"^data\.length_weights\.<4K is 0\.0001; expected repeats must be 0 or at least 0\.001",
    ),
    (
        {"buckets": {"<4K": 1, ">4K": 1}},
        (
            r"^data\.buckets has no range for lengths from 4096 to 4096; buckets must hold every "
            r"length"
        ),
    ),
    (
        {"buckets": {"<4K": 1}},
        r"^data\.buckets has no range for lengths from 4096; buckets must hold",
    ),
    (
        {"buckets": {">=4K": 1}},
        r"^data\.buckets has no range for lengths from 1 to 4095; buckets must hold",
    ),
    (
        {"buckets": {"<4K": 1, ">=2K": 1}},
        r"^data\.buckets has <4K and >=2K; ranges must not share a length",
    ),
    (
        {"buckets": {"<4K": -1, ">=4K": 1}},
        r"^data\.buckets\.<4K is -1; it must be at least 0; e\.g\. 0\.34",
    ),
    (
        {"buckets": {"<4K": INF, ">=4K": 1}},
        r"^data\.buckets\.<4K is inf; it must be a finite number of at least 0",
    ),
    (
        {"buckets": {"<4K": 0, ">=4K": 0}},
        r"^data\.buckets shares add up to 0; at least one must be above 0",
    ),
    (
        {"max_epochs": 0},
        r"^data\.max_epochs is 0; it must be at least 1; 1 uses a document at most once",
    ),
    ({"mixture": "fu"}, r"^data\.mixture is fu; it only records the preset, .*write mixture=fu"),
    ({"min_len": 0}, r"^data\.sources\.mine\.min_len is 0; it must be at least 1"),
    ({"max_len": -5}, r"^data\.sources\.mine\.max_len is -5; it must be at least 1"),
    (
        {"min_len": 9, "max_len": 8},
        r"^data\.sources\.mine\.min_len is 9; it must not be above data\.sources\.mine\.max_len 8",
    ),
]


def problems(**settings: Any) -> list[str]:
    source = SourceConfig(
        path="./mine",
        **{key: settings.pop(key) for key in ("min_len", "max_len") if key in settings},
    )
    data = DataConfig(seq_len=64, sources={"mine": source}, **settings)
    return list(rule_problems(data, "data."))


@pytest.mark.parametrize(("settings", "expected"), WRONG, ids=lambda x: str(x)[:40])
def test_wrong_setting_gives_its_line(settings: dict, expected: str) -> None:
    (line,) = problems(**settings)
    assert re.search(expected, line), line


def test_length_weights_of_a_source_follow_the_same_rules() -> None:
    source = SourceConfig(path="./mine", length_weights={"<4K": 2000, "x": 1})
    lines = list(rule_problems(DataConfig(seq_len=64, sources={"mine": source}), "data."))
    assert [line.split(";")[0] for line in lines] == [
        "data.sources.mine.length_weights.<4K is 2000",
        "data.sources.mine.length_weights has x",
    ]


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        (
            "data.length_weights={",
            (
                r"^data\.length_weights is {; it must be numbers by ranges of length; e\.g\. "
                r"'data\.length"
            ),
        ),
        ('data.buckets={"<4K": x}', r"^data\.buckets\.<4K is x; it must be a number"),
        (
            "data.sources.mine.length_weights=0.1",
            r"^data\.sources\.mine\.length_weights is 0\.1; it must be numbers by",
        ),
        (
            "mixture=nope",
            r"no mixture of that name; one of fu, olmo3, prolong_512k, ",
        ),
    ],
)
def test_wrong_type_gives_its_line(override: str, expected: str) -> None:
    with pytest.raises(ConfigError) as error:
        compose([*MINE, override])
    (line,) = str(error.value).splitlines()
    assert re.search(expected, line), line


@pytest.mark.parametrize("tokens", [1, 8])
def test_min_len_may_equal_max_len(tokens: int) -> None:
    assert not problems(min_len=tokens, max_len=tokens)


@pytest.mark.parametrize(
    "settings", [{"min_len": 5}, {"max_len": 5}, {"length_weights": {"<4K": 0.1}}]
)
def test_synthetic_sources_have_no_length_settings(settings: dict) -> None:
    (line,) = SourceConfig(kind="passkey", **settings).problems("a.")
    assert line.startswith(f"a.{next(iter(settings))} is ") and line.endswith(
        "made-up documents are all used, once; unset it"
    )


def test_ratios_are_relative() -> None:
    assert not problems(buckets={"<4K": 2, ">=4K": 1})


def test_an_override_replaces_the_value_of_a_preset() -> None:
    data = compose([*MINE, "mixture=ultralong", 'data.length_weights={"<8K":0.2}']).data
    assert (data.mixture, data.length_weights) == ("ultralong", {"<8K": 0.2})
    data = compose([*MINE, "mixture=fu", 'data.sources.mine.length_weights={"4K-8K": 3}']).data
    assert (data.length_weights, data.sources["mine"].length_weights) == (
        {"<4K": 0.1},
        {"4K-8K": 3.0},
    )


SHORT = {
    "fineweb_edu": 0.1,
    "fineweb": 0.1,
    "stackexchange": 0.04,
    "wikipedia": 0.04,
    "tulu": 0.03,
    "arxiv": 0.03,
    "openwebmath": 0.03,
    "textbooks": 0.03,
}
LONG = {
    "prolong_64k": {"repositories": 0.3, "books": 0.3},
    "prolong_512k": {
        "repositories_512k": 0.15,
        "repositories_64k": 0.15,
        "books_512k": 0.05,
        "books_64k": 0.25,
    },
}


@pytest.mark.parametrize(
    ("name", "weights", "buckets"),
    [
        ("fu", {"<4K": 0.1}, {}),
        ("ultralong", {"<4K": 0.1, ">8K": 2.0}, {}),
        ("olmo3", {}, {"<8K": 0.66, ">=8K": 0.34}),
        ("uniform", {}, {}),
    ],
)
def test_presets_by_length(name: str, weights: dict, buckets: dict) -> None:
    data = compose([*MINE, f"mixture={name}"]).data
    assert (data.mixture, data.length_weights, data.buckets) == (name, weights, buckets)
    assert list(data.sources) == ["mine"]


@pytest.mark.parametrize("name", LONG)
def test_presets_of_sources_are_the_papers_mix_and_ask_for_each_path(name: str) -> None:
    weights = {**LONG[name], **SHORT}
    with pytest.raises(ConfigError) as error:
        compose([*GOOD, f"mixture={name}"])
    lines = str(error.value).splitlines()
    assert [line.split(" ")[0] for line in lines] == [
        f"data.sources.{source}.path" for source in weights
    ]
    data = compose(
        [
            *GOOD,
            f"mixture={name}",
            *(f"data.sources.{source}.path=./{source}" for source in weights),
        ]
    ).data
    assert {source: s.weight for source, s in data.sources.items()} == weights
    assert math.isclose(sum(weights.values()), 1) and math.isclose(sum(LONG[name].values()), 0.6)


def test_no_document_is_in_both_lengths_of_prolong_512k() -> None:
    paths = [f"data.sources.{source}.path=./x" for source in (*LONG["prolong_512k"], *SHORT)]
    sources = compose([*GOOD, "mixture=prolong_512k", *paths]).data.sources
    for kind in ("books", "repositories"):
        long, short = sources[f"{kind}_512k"], sources[f"{kind}_64k"]
        assert (long.piece_len, short.piece_len) == (512 * 1024, 64 * 1024)
        assert (short.span.low, short.span.high) == (1, long.span.low) and long.span == (
            512 * 1024,
            math.inf,
        )


def test_a_source_of_a_preset_can_be_left_out_and_another_added() -> None:
    paths = [
        f"data.sources.{source}.path=./x"
        for source in (*LONG["prolong_64k"], *SHORT)
        if source != "tulu"
    ]
    more = [
        "data.sources.law.path=./law",
        "data.sources.law.weight=0.1",
        "data.sources.books.weight=0.4",
    ]
    sources = compose(
        [*GOOD, "mixture=prolong_64k", *paths, *more, "~data.sources.tulu"]
    ).data.sources
    assert "tulu" not in sources and (sources["law"].weight, sources["books"].weight) == (0.1, 0.4)


@pytest.mark.parametrize(
    "override",
    [
        "data.sources.mine.weight=1",
        'data.buckets={">=1": 1}',
        'data.sources.mine.length_weights={"<4K": 2}',
    ],
)
def test_uniform_refuses_weights(override: str) -> None:
    with pytest.raises(
        ConfigError, match=r"^data\.mixture is uniform; it uses every document equally often"
    ):
        compose([*MINE, "mixture=uniform", override])


def test_values_of_a_preset_are_frozen_with_its_name(tmp_path: Path) -> None:
    config = compose([*MINE, "mixture=ultralong", "data.max_epochs=8"])
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    again = load(tmp_path / "config.yaml").data
    assert (again.mixture, again.length_weights, again.max_epochs) == (
        "ultralong",
        {"<4K": 0.1, ">8K": 2.0},
        8,
    )

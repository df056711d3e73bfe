"""The line for each broken rule of the data stage's settings."""

import pytest
from changed_settings import GOOD, assert_line_with_rule_and_way_out, with_key

from ropewalk.conf.errors import ConfigError
from ropewalk.launch.config.compose import compose

WRONG = {
    "data.seq_len=1": "1; it must be at least 2",
    "data.seq_len=0": "0; it must be at least 2",
    "data.heldout_share=1": "1.0; it must be a finite number of at least 0 and below 1",
    "data.heldout_share=-0.1": "-0.1",
    "data.heldout_share=nan": "nan",
    "data.positions=reset": "reset; it must be one of restart, continue",
    "data.total_tokens=1023": "1023; it must hold one sequence of data.seq_len 1024",
    "data.min_piece=0": "0; it must be at least 1",
    "data.min_piece=1025": "1025",
    "data.packer=first_fit": "first_fit; it must be one of window_fill, best_fit, concat, single",
    "data.overlong=keep": "keep; it must be one of split, truncate, drop, error",
    "data.begin=": "empty; it must be a text; bos, eos, or unset it for none",
    "data.end=": "empty",
    "data.pose.chunks=1": "1; it must be at least 2",
    "data.pose.target_length=1024": "1024; it must be above data.seq_len 1024",
    "data.sources.mine.piece_len=31": "31; it must be between data.min_piece 32 and data",
    "data.sources.mine.piece_len=1025": (
        "1025; it must be between data.min_piece 32 and data.seq_len 1024"
    ),
    "data.sources.mine.kind=pdf": "pdf; it must be one of auto, tree",
    "data.sources.mine.weight=-1": "-1.0",
    "data.sources.mine.weight=nan": "nan",
    "data.sources.mine.template=no column": "'no column'; it must name columns in plain",
}
"""Override -> how the line goes on after `KEY is `."""
OTHER_KEY = {
    "data.sources.mine.weight=0": "data.sources weights add up to 0",
    "data.sources.other.kind=text": "data.sources.other.path is not set",
    "data.sources.keys.kind=passkey": (
        "data.sources.keys.filler is None; it must name another source; one of mine"
    ),
}
"""Override -> the start of its line, which is about another key."""


@pytest.mark.parametrize(("override", "start"), [*with_key(WRONG), *OTHER_KEY.items()])
def test_wrong_setting_gives_its_line_with_rule_and_way_out(override: str, start: str) -> None:
    assert_line_with_rule_and_way_out(override, start)


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (
            ("template={a}", "text_key=b"),
            r"text_key is b; data\.sources\.mine\.template names the text's columns; unset one",
        ),
        (
            ("kind=text", "text_key=b"),
            r"text_key is 'b'; it is read by kind jsonl, .*mds, hub, and this is text",
        ),
        (("kind=tree", "id_key=b"), r"id_key is 'b'; .* this is tree"),
        (
            ("kind=jsonl", "split=train"),
            r"split is 'train'; it is read by kind arrow, hub, and this is jsonl",
        ),
        (
            ("kind=arrow", "revision=main"),
            r"revision is 'main'; it is read by kind hub, and this is arrow",
        ),
        (("kind=hub", "pattern=*.x"), r"pattern is '\*\.x'; .* this is hub"),
        (
            ("kind=hub", "path=hf://datasets/a/b"),
            r"path is hf://datasets/a/b; kind hub takes a name such as org/name",
        ),
    ],
)
def test_setting_of_another_kind_of_source_is_refused(
    overrides: tuple[str, ...], expected: str
) -> None:
    with pytest.raises(ConfigError, match=rf"^data\.sources\.mine\.{expected}"):
        compose([*GOOD, *(f"data.sources.mine.{word}" for word in overrides)])


def test_settings_of_a_source_keep_their_text() -> None:
    overrides = (
        "kind=hub",
        "path=org/name",
        "config=2024_01",
        "split=train",
        "revision=007",
        "template={a}\n{{b}}",
        "id_key=yes",
    )
    source = compose([*GOOD, *(f"data.sources.mine.{word}" for word in overrides)]).data.sources[
        "mine"
    ]
    values = [f"{key}={getattr(source, key)}" for key, _ in (o.split("=") for o in overrides)]
    assert values == list(overrides)


def test_weights_are_for_all_sources_or_none() -> None:
    with pytest.raises(
        ConfigError,
        match=r"data\.sources\.mine\.weight is not set; either every source has a weight",
    ):
        compose([*GOOD, "data.sources.other.path=./x", "data.sources.other.weight=1"])


def test_synthetic_source_without_weights_is_refused() -> None:
    with pytest.raises(ConfigError, match="data.sources has a synthetic source and no weights"):
        compose([*GOOD, "data.sources.keys.kind=repeat", "data.sources.keys.filler=mine"])


def test_begin_and_end_must_leave_room_for_text() -> None:
    overrides = ["data.min_piece=1", "data.begin=bos", "data.end=eos"]
    message = (
        r"^data\.begin is bos; a piece of mine has 2 tokens, and data\.begin and data\.end leave "
        r"no room"
    )
    with pytest.raises(ConfigError, match=message):
        compose([*GOOD, *overrides, "data.sources.mine.piece_len=2"])
    assert (
        compose([*GOOD, *overrides, "data.sources.mine.piece_len=3"]).data.sources["mine"].piece_len
        == 3
    )


@pytest.mark.parametrize(
    ("mask", "positions", "expected"),
    [("true", "continue", "restart"), ("false", "restart", "continue")],
)
def test_pose_needs_positions_that_count_through_each_attention_span(
    mask: str, positions: str, expected: str
) -> None:
    overrides = [*GOOD, "data.pose.target_length=4096", f"data.document_mask={mask}"]
    message = (
        rf"^data\.positions is {positions}; with data\.pose and data\.document_mask={mask} .* set "
        rf"data\.positions={expected}$"
    )
    with pytest.raises(ConfigError, match=message):
        compose([*overrides, f"data.positions={positions}"])
    assert compose([*overrides, f"data.positions={expected}"]).data.pose.target_length == 4096


def test_filler_must_not_be_synthetic_itself() -> None:
    overrides = [
        f"data.sources.{n}.{k}" for n in ("one", "two") for k in ("kind=repeat", "weight=1")
    ]
    with pytest.raises(
        ConfigError,
        match=r"data\.sources\.one\.filler is two; it must name another source; one of mine",
    ):
        compose(
            [
                *GOOD,
                *overrides,
                "data.sources.mine.weight=1",
                "data.sources.one.filler=two",
                "data.sources.two.filler=mine",
            ]
        )


def test_no_source_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^data\.sources is empty"):
        compose([word for word in GOOD if "sources" not in word])

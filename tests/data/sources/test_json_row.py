"""A row with long strings in pieces equals the row of `json.loads`."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.data.sources import json_row
from ropewalk.data.sources.json_row import RepeatedKeyError
from ropewalk.data.sources.long_text import LongText

HARD = st.text(st.sampled_from('a\\"\n\té日😀\u2028'), max_size=120)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_row, "PIECE", 16)
    monkeypatch.setattr(json_row, "LONG", 24)
    monkeypatch.setattr("ropewalk.data.sources.long_text.LONG", 24)


def plain(row: Any) -> Any:
    if isinstance(row, dict):
        return {key: plain(value) for key, value in row.items()}
    return str(row) if isinstance(row, LongText) else row


@settings(deadline=None, max_examples=300)
@given(st.dictionaries(st.sampled_from(["text", "b", "c" * 30]), HARD), st.booleans())
def test_rows_equal_json_loads(row: dict[str, str], ascii_only: bool) -> None:
    line = json.dumps(row, ensure_ascii=ascii_only).encode()
    values = json_row.parse(line, ["text"])
    assert plain(values).get("text") == json.loads(line).get("text")
    assert all(
        len(piece) <= 16 for v in values.values() if isinstance(v, LongText) for piece in v.pieces
    )


@settings(deadline=None, max_examples=300)
@given(st.text(st.sampled_from('a\\"ud8340é{}:, '), max_size=90))
def test_a_line_is_malformed_when_json_says_so(content: str) -> None:
    """Escapes, halves of surrogate pairs and quotes, cut anywhere."""
    line = f'{{"text": "{content}"}}'.encode()
    try:
        expected = json.loads(line)
    except ValueError:
        with pytest.raises(ValueError):
            json_row.parse(line, ["text"])
        return
    assert plain(json_row.parse(line, [])) == expected


@pytest.mark.parametrize(
    "escapes", ["\\ud83d\\ude00" * 9, "\\\\" * 40, "\\\\\\u00e9" * 9, "\\ud83d" * 20]
)
def test_escapes_are_not_cut(escapes: str) -> None:
    for shift in range(16):
        line = f'{{"text": "{"x" * shift}{escapes}"}}'.encode()
        assert plain(json_row.parse(line, [])) == json.loads(line)


@pytest.mark.parametrize("value", ["short", "long " * 20])
def test_a_key_that_is_read_and_stands_twice_is_refused(value: str) -> None:
    line = f'{{"text": "one", "n": {{"text": 1, "text": 2}}, "text": "{value}"}}'.encode()
    with pytest.raises(RepeatedKeyError, match="^text$"):
        json_row.parse(line, ["text"])
    assert plain(json_row.parse(line, ["n"])) == json.loads(line)  # the others are not read
    assert json_row.parse(b'{"a": {"text": 1, "text": 2}, "text": "b"}', ["text"])["text"] == "b"

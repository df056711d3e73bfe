"""Signed records: another value anywhere makes them none; files are written whole."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from ropewalk.conf.artifacts.records import (
    is_signed,
    move_aside,
    read_signed,
    remove,
    signed,
    write_json,
)

RECORD = {"step": 4, "loss": 2.5, "content": {"10": [1, 2], "9": None}, "name": "ü"}


def by_hand(record: dict[str, Any]) -> str:
    """The digest: sha256 of the JSON with sorted keys and no spaces."""
    text = json.dumps(record, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def test_the_digest_is_of_the_other_values(tmp_path: Path) -> None:
    write_json(tmp_path / "record", signed(RECORD))
    assert json.loads((tmp_path / "record").read_text()) == {**RECORD, "digest": by_hand(RECORD)}
    assert read_signed(tmp_path / "record") == {**RECORD, "digest": by_hand(RECORD)}


def test_values_that_json_stores_otherwise_are_signed_as_stored(tmp_path: Path) -> None:
    """Keys that are numbers sort in another order as text; tuples become lists."""
    write_json(tmp_path / "record", signed({"by_rank": {9: (1, 2), 10: float("nan")}}))
    assert read_signed(tmp_path / "record") is not None


@pytest.mark.parametrize("position", range(0, 100, 7))
def test_a_flipped_byte_makes_it_none(tmp_path: Path, position: int) -> None:
    path = tmp_path / "record"
    write_json(path, signed(RECORD))
    content = bytearray(path.read_bytes())
    original = json.loads(content)
    content[position] ^= 1
    path.write_bytes(content)
    try:
        same = json.loads(content) == original  # other space between the same values
    except ValueError:
        same = False
    assert (read_signed(path) is not None) == same


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "7", "[" * 9000, "\xff", "{}"])
def test_what_is_no_signed_record_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "record").write_bytes(text.encode("latin-1"))
    assert read_signed(tmp_path / "record") is None
    assert read_signed(tmp_path / "missing") is None
    assert read_signed(tmp_path) is None and read_signed(tmp_path / "record" / "below") is None


def test_an_edited_record_is_not_signed() -> None:
    assert is_signed(signed(RECORD))
    assert not is_signed({**signed(RECORD), "step": 5}) and not is_signed(RECORD)


def test_a_folder_in_the_stead_of_a_file_is_kept_aside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "record").mkdir()
    (tmp_path / "record" / "mine").touch()
    write_json(tmp_path / "record", signed(RECORD))
    assert read_signed(tmp_path / "record") is not None
    assert (tmp_path / "record.damaged1" / "mine").exists()
    assert f"{tmp_path / 'record'} is a folder where a file belongs" in capsys.readouterr().out


def test_moved_aside_takes_the_first_free_number(tmp_path: Path) -> None:
    for _ in range(2):
        (tmp_path / "part").touch()
        move_aside(tmp_path / "part", "damaged")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["part.damaged1", "part.damaged2"]


def test_remove_takes_files_folders_links_and_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").touch()
    (tmp_path / "file").touch()
    (tmp_path / "kept").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    for name in ("folder", "file", "link", "missing"):
        remove(tmp_path / name)
    assert [p.name for p in tmp_path.iterdir()] == ["kept"]

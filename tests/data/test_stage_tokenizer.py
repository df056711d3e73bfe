"""The tokenizer that goes into the trained model: what is changed of it redoes the data stage, and no token where ids stay."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_fixture import DataFixture

from ropewalk.data import stage
from ropewalk.data import tokenizer as tokenizers
from ropewalk.data.dataset import DataArtifacts
from ropewalk.data.tokens import store


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tokenizer with a chat template, as a base has it."""
    made = tokenizers.train(["rope walk yarn lay twist strand"] * 20, 300)
    made.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    tokenizers.save(made, tmp_path / "base")
    return tmp_path / "base"


def run(data_fixture: DataFixture, folder: Path) -> str:
    return stage.run(
        data_fixture.config(), stage.Inputs(str(folder)), data_fixture.folder / "data"
    )[1]


def test_another_share_of_held_out_text_tokenises_nothing_and_plans_anew(
    data_fixture: DataFixture, folder: Path
) -> None:
    """With the tokenizer of a base; one that is trained on the sources reads training text only, so it becomes another."""
    found, written = {}, {}
    for share in (0.2, 0.5, 0.2):
        stage.run(
            data_fixture.config(f"data.heldout_share={share}"),
            stage.Inputs(str(folder)),
            data_fixture.folder / "data",
        )
        folders = DataArtifacts.of(data_fixture.folder, data_fixture.folder / "cache")
        found[share] = {
            n: [i for i, h in zip(s.ids, s.heldout, strict=True) if h]
            for n, s in stores(folders).items()
        }
        written[share] = {
            p: p.stat().st_mtime_ns
            for p in (data_fixture.folder / "cache" / "tokens").rglob("*.bin")
        }
        assert found[share] == {
            n: [i for i in s.ids if store.is_heldout(i, share)] for n, s in stores(folders).items()
        }
        plan = {int(d) for d in folders.sequences().pieces.document.tolist()}
        held = np.flatnonzero(
            np.concatenate([s.heldout for s in stores(folders).values()])
        ).tolist()
        assert plan and not plan & set(held)
    assert written[0.2] == written[0.5] and all(
        set(found[0.2][n]) < set(found[0.5][n]) for n in found[0.2]
    )


def stores(folders: DataArtifacts) -> dict[str, store.Store]:
    return {name: folders.store(name) for name in folders.stores}


def set_key(**found: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "tokenizer_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | found))

    return change


CHANGES = {
    "eos": (set_key(eos_token="<|pad|>"), "tokenizer_config.json", "<|pad|>"),
    "length": (set_key(model_max_length=4096), "tokenizer_config.json", "4096"),
    "template": (
        lambda at: (at / "chat_template.jinja").write_text("{{ 1 }}"),
        "chat_template.jinja",
        "{{ 1 }}",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_that_moves_no_id_reaches_the_run_and_redoes_no_token(
    data_fixture: DataFixture, folder: Path, change: str
) -> None:
    run(data_fixture, folder)
    tokens = {
        path: path.stat().st_mtime_ns
        for path in (data_fixture.folder / "cache").rglob("*")
        if path.is_file()
    }
    do, name, wanted = CHANGES[change]
    do(folder)
    assert "redone: tokenizer_files was" in run(data_fixture, folder)
    assert wanted in (data_fixture.folder / "data" / "tokenizer" / name).read_text()
    assert {path: path.stat().st_mtime_ns for path in tokens} == tokens
    assert "skipped" in run(data_fixture, folder)


def test_where_the_tokenizer_lies_is_no_change_of_it(
    data_fixture: DataFixture, folder: Path
) -> None:
    run(data_fixture, folder)
    shutil.copytree(folder, data_fixture.folder / "elsewhere")
    assert "skipped" in run(data_fixture, data_fixture.folder / "elsewhere")


def test_what_is_said_of_the_machine_is_no_change(folder: Path) -> None:
    """As a tokenizer of the hub's cache says it, and one of a folder."""
    one = tokenizers.load(str(folder))
    before = tokenizers.files_fingerprint(one)
    assert "is_local" in one.init_kwargs
    one.init_kwargs |= {"is_local": False, "_commit_hash": "abc", "cache_dir": "/big/cache"}
    one.name_or_path = "hub/name"
    assert tokenizers.files_fingerprint(one) == before
    one.init_kwargs["clean_up"] = True
    assert tokenizers.files_fingerprint(one) != before

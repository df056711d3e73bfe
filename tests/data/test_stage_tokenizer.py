"""A changed tokenizer file redoes the data stage, but no tokens where the ids stay the same."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizer_families
from data_fixture import DataFixture
from tokenizers import Tokenizer

from ropewalk.data import stage
from ropewalk.data import tokenizer as tokenizers
from ropewalk.data.dataset import DataArtifacts
from ropewalk.data.packing import plan
from ropewalk.data.tokens import store


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A base's tokenizer with a chat template."""
    tokenizer = tokenizers.train(["rope walk yarn lay twist strand"] * 20, 300)
    tokenizers.save(tokenizer, tmp_path / "base")
    template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    (tmp_path / "base" / "chat_template.jinja").write_text(template)
    return tmp_path / "base"


def run(data_fixture: DataFixture, folder: Path, *overrides: str) -> str:
    config, output = data_fixture.config(*overrides), data_fixture.folder / "data"
    return stage.run(config, stage.Inputs(str(folder)), output)[1]


def test_another_share_of_held_out_text_makes_a_plan_and_no_tokens(
    data_fixture: DataFixture, folder: Path
) -> None:
    """With a base's tokenizer. A trained tokenizer changes, since it reads only training text."""
    heldout, written = {}, {}
    for share in (0.2, 0.5, 0.2):
        run(data_fixture, folder, f"data.heldout_share={share}")
        artifacts = DataArtifacts.of(data_fixture.folder, data_fixture.folder / "cache")
        all_stores = stores(artifacts)
        heldout[share] = {
            name: [i for i, h in zip(s.ids, s.heldout, strict=True) if h]
            for name, s in all_stores.items()
        }
        written[share] = {
            path: path.stat().st_mtime_ns
            for path in (data_fixture.folder / "cache" / "tokens").rglob("*.bin")
        }
        assert heldout[share] == {
            name: [i for i in s.ids if store.is_heldout(i, share)] for name, s in all_stores.items()
        }
        with plan.read_blocks(artifacts.plan) as blocks:
            documents = {number for block in blocks for number in block.document.tolist()}
        masks = np.concatenate([s.heldout for s in all_stores.values()])
        assert documents and not documents & set(np.flatnonzero(masks).tolist())
    assert written[0.2] == written[0.5]
    assert all(set(heldout[0.2][name]) < set(heldout[0.5][name]) for name in heldout[0.2])


def stores(folders: DataArtifacts) -> dict[str, store.Store]:
    return {name: folders.store(name) for name in folders.stores}


def set_key(**entry: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "tokenizer_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | entry))

    return change


CHANGES = {
    "eos": (set_key(eos_token="<|pad|>"), "tokenizer_config.json", "<|pad|>"),
    "length": (set_key(model_max_length=4096), "tokenizer_config.json", "4096"),
    "template": (
        lambda folder: (folder / "chat_template.jinja").write_text("{{ 1 }}"),
        "chat_template.jinja",
        "{{ 1 }}",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_without_other_ids_reaches_the_run_and_redoes_no_token(
    data_fixture: DataFixture, folder: Path, change: str
) -> None:
    run(data_fixture, folder)
    tokens = {
        path: path.stat().st_mtime_ns
        for path in (data_fixture.folder / "cache").rglob("*")
        if path.is_file()
    }
    apply, name, expected = CHANGES[change]
    apply(folder)
    assert "redone: tokenizer_files was" in run(data_fixture, folder)
    assert expected in (data_fixture.folder / "data" / "tokenizer" / name).read_text()
    assert {path: path.stat().st_mtime_ns for path in tokens} == tokens
    assert "skipped" in run(data_fixture, folder)


def test_the_stored_ids_are_those_of_tokenizer_json_alone(
    data_fixture: DataFixture, folder: Path
) -> None:
    """transformers builds the class that the config names, with a split of its own."""
    content = tokenizer_families.tokenizer_json("deepseek")
    (folder / "tokenizer.json").write_text(content)
    set_key(tokenizer_class="GPT2Tokenizer")(folder)
    (data_fixture.folder / "books" / "digits.txt").write_text("in 1998 and 40,000 of 2500000\n" * 9)
    run(data_fixture, folder)
    artifacts = DataArtifacts.of(data_fixture.folder, data_fixture.folder / "cache")
    books, expected = artifacts.store("books"), Tokenizer.from_str(content)
    for index, name in enumerate(books.ids):
        text = (data_fixture.folder / "books" / name).read_text()
        assert books.document(index).tolist() == expected.encode(text).ids
    assert (artifacts.tokenizer / "tokenizer.json").read_text() == content


def test_another_folder_with_the_same_tokenizer_redoes_nothing(
    data_fixture: DataFixture, folder: Path
) -> None:
    run(data_fixture, folder)
    shutil.copytree(folder, data_fixture.folder / "elsewhere")
    assert "skipped" in run(data_fixture, data_fixture.folder / "elsewhere")


def test_keys_that_differ_by_machine_are_not_fingerprinted(folder: Path) -> None:
    """transformers writes such keys when it saves a tokenizer."""
    fingerprint = tokenizers.files_fingerprint(tokenizers.load(str(folder)))
    set_key(is_local=False, _commit_hash="abc", cache_dir="/big/cache", name_or_path="hub/name")(
        folder
    )
    assert tokenizers.files_fingerprint(tokenizers.load(str(folder))) == fingerprint
    set_key(clean_up=True)(folder)
    assert tokenizers.files_fingerprint(tokenizers.load(str(folder))) != fingerprint

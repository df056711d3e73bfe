"""The ids of a run are those that the package tokenizers gives for tokenizer.json alone."""

import codecs
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizer_families
from tokenizers import AddedToken, Tokenizer, models

from ropewalk.conf.errors import ConfigError
from ropewalk.data import tokenizer as tokenizers
from ropewalk.data.tokenizer.comparison import PROBES

SPECIAL = "before <|endoftext|> after"


def base(folder: Path, family: str = "llama3", **config: Any) -> Path:
    """A base's folder with a tokenizer of that family."""
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer.json").write_text(tokenizer_families.tokenizer_json(family))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def ids_of_file(folder: Path, texts: list[str]) -> list[list[int]]:
    """By the package tokenizers; special tokens inside a text are text."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    return [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]


@pytest.mark.parametrize("family", tokenizer_families.FAMILIES)
def test_the_ids_are_those_of_tokenizer_json_whatever_class_is_named(
    tmp_path: Path, family: str
) -> None:
    folder = base(tmp_path, family, tokenizer_class="GPT2Tokenizer")
    encode = tokenizers.text_encoder(tokenizers.load(str(folder)))
    texts = [*PROBES, *tokenizer_families.TEXTS[:4], SPECIAL]
    assert [encode(text).tolist() for text in texts] == ids_of_file(folder, texts)


def test_saved_files_are_those_that_came_in_byte_for_byte(tmp_path: Path) -> None:
    folder = base(tmp_path / "base", tokenizer_class="LlamaTokenizerFast", model_max_length=256)
    (folder / "additional_chat_templates").mkdir()
    for name in ("chat_template.jinja", "tokenizer.model", "additional_chat_templates/tool.jinja"):
        (folder / name).write_bytes(name.encode() + b"\r\n\xff")
    (folder / "model.safetensors").write_bytes(b"weights")
    tokenizers.save(tokenizers.load(str(folder)), tmp_path / "saved")
    files = {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    saved = tmp_path / "saved"
    assert {p.relative_to(saved): p.read_bytes() for p in saved.rglob("*") if p.is_file()} == {
        path: data for path, data in files.items() if path.name != "model.safetensors"
    }


def test_special_words_inside_a_document_are_text(tmp_path: Path) -> None:
    """No BOS or EOS inside: a document that spells one does not end there."""
    ids = tokenizers.text_encoder(tokenizers.load(str(base(tmp_path))))(SPECIAL)
    assert not {0, 1, 2} & set(ids.tolist())


def test_padding_and_truncation_of_a_tokenizer_file_change_no_id(tmp_path: Path) -> None:
    plain = base(tmp_path / "plain")
    tokenizer = Tokenizer.from_str(tokenizer_families.tokenizer_json("llama3"))
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=50)
    cut = base(tmp_path / "cut")
    tokenizer.save(str(cut / "tokenizer.json"))
    loaded = tokenizers.load(str(cut))
    assert tokenizers.text_encoder(loaded)(PROBES[0]).tolist() == ids_of_file(plain, [PROBES[0]])[0]
    assert tokenizers.encoding_fingerprint(loaded) == tokenizers.encoding_fingerprint(
        tokenizers.load(str(plain))
    )


def test_a_tokenizer_that_draws_its_merges_is_refused(tmp_path: Path) -> None:
    """Its file alone, read by the package tokenizers, gives other ids each time."""
    folder = base(tmp_path)
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["dropout"] = 0.5
    (folder / "tokenizer.json").write_text(json.dumps(content))
    first, second = (ids_of_file(folder, tokenizer_families.TEXTS[:4]) for _ in range(2))
    assert first != second
    with pytest.raises(ConfigError, match=r"leaves out merges at random \(dropout 0\.5\)"):
        tokenizers.load(str(folder))
    for same in (0.0, None):
        content["model"]["dropout"] = same
        (folder / "tokenizer.json").write_text(json.dumps(content))
        tokenizers.load(str(folder))


def test_vocab_size_is_the_largest_id_plus_one_also_with_gaps(tmp_path: Path) -> None:
    Tokenizer(models.WordLevel({"a": 0, "b": 9}, unk_token="a")).save(
        str(tmp_path / "tokenizer.json")
    )
    loaded = tokenizers.load(str(tmp_path))
    assert tokenizers.vocab_size(loaded) == 10
    assert tokenizers.size_problems(loaded, "tiny", 10) == []
    (line,) = tokenizers.size_problems(loaded, "tiny", 9)
    assert line.startswith("model.path is tiny; its tokenizer has ids up to 9, and vocab_size")


def test_training_splits_digits_and_is_the_same_twice() -> None:
    texts = ["yarn 123 yarn 1234", "walk 99"] * 50
    first, second, other = (tokenizers.train(part, 280) for part in (texts, texts, texts[:1]))
    assert (
        tokenizers.encoding_fingerprint(first)
        == tokenizers.encoding_fingerprint(second)
        != tokenizers.encoding_fingerprint(other)
    )
    words = first.backend.get_vocab()
    assert [word for word in words if sum(c.isdigit() for c in word) > 1] == []


@pytest.mark.parametrize(
    ("config", "model_config", "expected"),
    [
        ({"bos_token": "<|begin|>", "eos_token": {"content": "<|endoftext|>"}}, {}, (2, 0)),
        ({}, {"bos_token_id": 2, "eos_token_id": [0, 1]}, (2, 0)),
        ({"bos_token": None, "eos_token": "<|pad|>"}, {"bos_token_id": 2}, (2, 1)),
    ],
)
def test_bos_and_eos_are_those_of_the_files(
    tmp_path: Path, config: Any, model_config: Any, expected: tuple[int, int]
) -> None:
    folder = base(tmp_path, **config)
    (folder / "config.json").write_text(json.dumps(model_config))
    loaded = tokenizers.load(str(folder))
    ids = (tokenizers.token_id(loaded, "data.begin", name) for name in ("bos", "eos"))
    assert tuple(ids) == expected
    with pytest.raises(ConfigError, match="data.begin is <s>; it must be one token"):
        tokenizers.token_id(loaded, "data.begin", "<s>")


def change(name: str, edit: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / name
        path.write_bytes(edit(path.read_bytes()))

    return apply


def set_key(name: str, **entry: Any) -> Callable[[Path], None]:
    return change(name, lambda data: json.dumps(json.loads(data) | entry).encode())


def without_unknown_token(folder: Path) -> None:
    Tokenizer(models.WordLevel({"a": 0})).save(str(folder / "tokenizer.json"))


def directory(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.json").mkdir()


FILE, CONFIG = "tokenizer.json", "tokenizer_config.json"
ADDED = {"600": {"content": "<new>", "special": False}}
BROKEN = {
    "garbage": (change(FILE, lambda _: b"\x00\xffgarbage"), "its tokenizer.json must be readable"),
    "truncated": (change(FILE, lambda data: data[:500]), "its tokenizer.json must be readable"),
    "empty": (change(FILE, lambda _: b""), "its tokenizer.json must be readable"),
    "list": (change(FILE, lambda _: b"[]"), "a list, not an object"),
    "no tokenizer": (change(FILE, lambda _: b"{}"), "its tokenizer.json must be readable"),
    "no words": (
        change(FILE, lambda _: Tokenizer(models.BPE()).to_str().encode()),
        "its vocabulary is empty",
    ),
    "byte order mark": (change(FILE, lambda data: codecs.BOM_UTF8 + data), "byte order mark"),
    "pointer": (
        change(FILE, lambda _: b"version https://git-lfs.github.com/spec/v1\n"),
        "git lfs pull",
    ),
    "nested": (change(FILE, lambda _: b"[" * 100_000), "its tokenizer.json must be readable"),
    "folder": (directory, "tokenizer.json: Is a directory"),
    "model": (set_key(FILE, model={"type": "Other"}), "its tokenizer.json must be readable"),
    "config": (change(CONFIG, lambda _: b"{,}"), "its tokenizer_config.json must be readable"),
    "config mark": (change(CONFIG, lambda data: codecs.BOM_UTF8 + data), "byte order mark"),
    "config list": (change(CONFIG, lambda _: b"[1]"), "a list, not an object"),
    "half a letter": (set_key(CONFIG, bos_token="\ud800"), "bos_token is '\\ud800', not text"),
    "half an added one": (
        set_key(CONFIG, added_tokens_decoder={"1": {"content": "\ud800"}}),
        "no id and token",
    ),
    "bos": (set_key(CONFIG, bos_token=5), "bos_token is 5, not text"),
    "added": (set_key(CONFIG, added_tokens_decoder=[1]), "added_tokens_decoder is no object"),
    "added id": (set_key(CONFIG, added_tokens_decoder={"a": "b"}), "no id and token"),
    "other word": (set_key(CONFIG, added_tokens_decoder=ADDED), "has '<new>' as token 600"),
    "decoder": (
        set_key(FILE, decoder={"type": "Strip", "content": "Ġ", "start": 1, "stop": 1}),
        "must encode and decode any text",
    ),
    "no unknown token": (
        without_unknown_token,
        "its tokenizer.json must encode and decode any text",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_tokenizer_is_refused_in_one_line(tmp_path: Path, case: str) -> None:
    apply, message = BROKEN[case]
    folder = base(tmp_path)
    apply(folder)
    with pytest.raises(ConfigError, match="^model.path is ") as error:
        tokenizers.load(str(folder))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_folder_without_a_tokenizer_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(ConfigError, match="it must hold a tokenizer") as error:
        tokenizers.load(str(tmp_path))
    assert "\n" not in str(error.value)


def test_a_special_token_that_only_the_config_adds_changes_no_id(tmp_path: Path) -> None:
    folder = base(tmp_path, added_tokens_decoder={"600": {"content": "[X]", "special": True}})
    encode = tokenizers.text_encoder(tokenizers.load(str(folder)))
    assert encode("a [X] b").tolist() == ids_of_file(folder, ["a [X] b"])[0]


def test_words_that_both_files_add_are_accepted(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_str(tokenizer_families.tokenizer_json("llama3"))
    tokenizer.add_tokens([AddedToken("<new>", special=False)])
    number = tokenizer.token_to_id("<new>")
    added = {str(number): {"content": "<new>", "special": False}}
    folder = base(tmp_path, added_tokens_decoder=added)
    tokenizer.save(str(folder / "tokenizer.json"))
    encode = tokenizers.text_encoder(tokenizers.load(str(folder)))
    assert number in encode("a <new> b").tolist() == ids_of_file(folder, ["a <new> b"])[0]

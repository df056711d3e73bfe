"""A server that loads the saved files by transformers reads the ids of tokenizer.json alone.

transformers builds some classes anew, with a split of their own; each class name that a
tokenizer_config.json may have is tried on twelve families of tokenizers.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizer_families
from tokenizers import Tokenizer
from transformers import AutoTokenizer
from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES

from ropewalk.data import tokenizer as tokenizers
from ropewalk.data.tokenizer import readers

TEXTS = [
    *tokenizer_families.TEXTS[:4],
    "In 1998 the 40,000-ton ship (length: 187.5 m) cost $2500000;   she'd sailed 16 times.",
    "for(int i=0;i<10;++i){a[i]+=0x1F;}\n\n\t// Überprüfung №42 — «да» 北京2008年 🙂🙂",
]
NAMES = sorted(
    {name for name in TOKENIZER_MAPPING_NAMES.values() if name}
    | {"PreTrainedTokenizerFast", "PreTrainedTokenizer", "LlamaTokenizer", "LlamaTokenizerFast"}
    | {"GPT2TokenizerFast", "BloomTokenizerFast", "NoSuchTokenizer", "AutoTokenizer"}
)
FAMILIES = list(tokenizer_families.FAMILIES)


def refuse_other_ids(folder: Path, family: str, name: Any, model_type: str = "llama") -> str | None:
    """The line of `for_readers`, after its ids and files are compared with the package's alone."""
    base, saved = folder / "base", folder / "saved"
    base.mkdir()
    content = tokenizer_families.tokenizer_json(family)
    (base / "tokenizer.json").write_text(content)
    (base / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": name}))
    config = {"model_type": model_type}
    loaded = tokenizers.load(str(base))
    written, line = tokenizers.for_readers(loaded, config, folder / "cache")
    tokenizers.save(written, saved)
    (saved / "config.json").write_text(json.dumps(config))
    assert (saved / "tokenizer.json").read_text() == content
    expected = ids(Tokenizer.from_file(str(base / "tokenizer.json")))
    assert ids(loaded.backend) == expected
    assert ids(Tokenizer.from_file(str(saved / "tokenizer.json"))) == expected
    if "AutoTokenizer" not in (line or ""):
        assert ids(AutoTokenizer.from_pretrained(saved).backend_tokenizer) == expected
    if line is None:
        assert written.files == loaded.files
    return line


def ids(tokenizer: Tokenizer) -> list[list[int]]:
    return [tokenizer.encode(text, add_special_tokens=False).ids for text in TEXTS]


@pytest.mark.parametrize("number", range(0, len(NAMES), 2))
def test_each_second_class_name_with_one_family(tmp_path: Path, number: int) -> None:
    family = FAMILIES[number // 2 % len(FAMILIES)]
    line = refuse_other_ids(tmp_path, family, NAMES[number])
    assert line is None or "tokenizer_config.json of the trained model names" in line


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_each_class_name_with_all_families(tmp_path: Path, name: str) -> None:
    for family in FAMILIES:
        (tmp_path / family).mkdir()
        line = refuse_other_ids(tmp_path / family, family, name)
        assert line is None or "tokenizer_config.json of the trained model names" in line


@pytest.mark.parametrize("family", FAMILIES)
def test_a_class_that_splits_in_its_own_way_is_told_and_replaced(
    tmp_path: Path, family: str
) -> None:
    line = refuse_other_ids(tmp_path, family, "GPT2Tokenizer")
    same = family in ("gpt2", "digits")  # no merge of "digits" has two digits
    assert (line is None) == same
    assert same or "GPT2Tokenizer of transformers splits text in its own way" in str(line)


@pytest.mark.parametrize("name", ["PreTrainedTokenizerFast", "TokenizersBackend", None, 5, ""])
@pytest.mark.parametrize("family", ["deepseek", "added_tokens"])
def test_files_that_are_read_as_they_are_stay_as_they_came(
    tmp_path: Path, family: str, name: Any
) -> None:
    line = refuse_other_ids(tmp_path, family, name)
    assert line is None or name == 5


def test_a_class_that_the_models_type_decides_is_told(tmp_path: Path) -> None:
    """transformers takes Qwen2Tokenizer for qwen2, whatever class is named."""
    line = refuse_other_ids(tmp_path, "deepseek", "LlamaTokenizerFast", "qwen2")
    assert "Qwen2Tokenizer of transformers splits text" in str(line)
    assert "load its tokenizer by PreTrainedTokenizerFast.from_pretrained" in str(line)


def test_added_tokens_of_the_config_give_way_to_those_of_the_file(tmp_path: Path) -> None:
    """The config has other flags for a token: transformers would take them."""
    content = tokenizer_families.tokenizer_json("added_tokens")
    token = next(t for t in json.loads(content)["added_tokens"] if t["content"] == "<think>")
    other = {**token, "lstrip": False, "rstrip": False, "__type": "AddedToken"}
    base = tmp_path / "base"
    base.mkdir()
    (base / "tokenizer.json").write_text(content)
    config = {"added_tokens_decoder": {str(token["id"]): other}}
    (base / "tokenizer_config.json").write_text(json.dumps(config))
    loaded = tokenizers.load(str(base))
    written, line = tokenizers.for_readers(loaded, {}, tmp_path / "cache")
    tokenizers.save(written, tmp_path / "saved")
    text = "one <think> two"
    expected = Tokenizer.from_str(content).encode(text).ids
    assert AutoTokenizer.from_pretrained(base)(text).input_ids != expected
    assert AutoTokenizer.from_pretrained(tmp_path / "saved")(text).input_ids == expected
    assert line and "splits text in its own way" in line


def test_the_answer_is_kept_for_the_same_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = refuse_other_ids(tmp_path, "deepseek", "GPT2Tokenizer")
    loaded = tokenizers.load(str(tmp_path / "base"))
    monkeypatch.setattr(readers, "_readable_config", lambda *_: 1 / 0)
    written, line = tokenizers.for_readers(loaded, {"model_type": "llama"}, tmp_path / "cache")
    assert line == first
    tokenizers.save(written, tmp_path / "again")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "again" / file).read_bytes() == (tmp_path / "saved" / file).read_bytes()
    with pytest.raises(ZeroDivisionError):
        tokenizers.for_readers(loaded, {"model_type": "qwen2"}, tmp_path / "cache")

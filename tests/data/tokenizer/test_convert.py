"""Tokenizers without tokenizer.json: what transformers makes of them gives the same ids by itself,
by transformers and by the package tokenizers; or the tokenizer is refused."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import tokenizer_families
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from ropewalk.conf.errors import ConfigError
from ropewalk.data import tokenizer as tokenizers

TEXTS = [*tokenizer_families.TEXTS[:4], "In 1998 she'd 40,000 ropes;   «да» 北京 🙂"]


def base(folder: Path, family: str, tokenizer_class: str | None) -> Path:
    """A base with vocab.json and merges.txt."""
    folder.mkdir()
    model = json.loads(tokenizer_families.tokenizer_json(family))["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = "\n".join(" ".join(pair) for pair in model["merges"])
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}\n")
    config = {"tokenizer_class": tokenizer_class} if tokenizer_class else {}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    return folder


@pytest.mark.parametrize(
    ("family", "tokenizer_class"), [("gpt2", "GPT2Tokenizer"), ("qwen2", "Qwen2Tokenizer")]
)
def test_vocabulary_and_merges_give_the_ids_of_their_class(
    tmp_path: Path, family: str, tokenizer_class: str
) -> None:
    """The oracle is the family's own tokenizer, from which the two files were taken."""
    folder = base(tmp_path / "base", family, tokenizer_class)
    written, line = tokenizers.for_readers(
        tokenizers.load(str(folder)), {"model_type": "llama"}, tmp_path / "cache"
    )
    assert line is None
    saved = tmp_path / "saved"
    tokenizers.save(written, saved)
    expected = ids(Tokenizer.from_str(tokenizer_families.tokenizer_json(family)))
    assert ids(written.backend) == expected
    assert ids(Tokenizer.from_file(str(saved / "tokenizer.json"))) == expected
    assert ids(AutoTokenizer.from_pretrained(saved).backend_tokenizer) == expected
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        assert (saved / name).read_bytes() == (folder / name).read_bytes()


def ids(tokenizer: Any) -> list[list[int]]:
    return [tokenizer.encode(text, add_special_tokens=False).ids for text in TEXTS]


@pytest.mark.parametrize(
    ("tokenizer_class", "message"),
    [
        ("LlamaTokenizer", "LlamaTokenizer of transformers makes one of its files that loses let"),
        ("PreTrainedTokenizerFast", "it must hold a tokenizer that transformers can read"),
        (None, "it must hold a tokenizer that transformers can read"),
        ("CTRLTokenizer", "its tokenizer has no fast backend"),
        ("ByT5Tokenizer", "its tokenizer has no fast backend"),
    ],
)
def test_files_that_no_class_reads_rightly_are_refused(
    tmp_path: Path, tokenizer_class: str | None, message: str
) -> None:
    folder = base(tmp_path / "base", "gpt2", tokenizer_class)
    with pytest.raises(ConfigError, match="^model.path is ") as error:
        tokenizers.load(str(folder))
    assert message in str(error.value) and "\n" not in str(error.value)


def test_garbage_in_a_sentencepiece_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(b"\x00garbage")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    with pytest.raises(ConfigError, match="pip install sentencepiece") as error:
        tokenizers.load(str(tmp_path))
    assert "\n" not in str(error.value)


CODE = """\
from transformers import PreTrainedTokenizerFast

from .own_words import Own


class OwnTokenizerFast(Own, PreTrainedTokenizerFast):
    pass
"""
IMPORT = "from tokenizers.pre_tokenizers import Digits\n\n\n"
PARENTS = {
    "same": "    pass\n",
    "other": "    def __init__(self, **kwargs):\n        super().__init__(**kwargs)\n"
    "        self.backend_tokenizer.pre_tokenizer[0] = Digits(True)\n",
}


@pytest.mark.parametrize("parent", PARENTS)
@pytest.mark.parametrize("trusted", [True, False])
def test_code_of_its_own_goes_along_where_it_reads_the_file(
    tmp_path: Path, parent: str, trusted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import dynamic_module_utils

    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    for module in [name for name in sys.modules if name.split(".")[0] == "transformers_modules"]:
        monkeypatch.delitem(sys.modules, module)
    folder = tmp_path / f"base_{parent}_{trusted}"
    folder.mkdir()
    content = tokenizer_families.tokenizer_json("deepseek")
    (folder / "tokenizer.json").write_text(content)
    (folder / "tokenization_own.py").write_text(CODE)
    (folder / "own_words.py").write_text(f"{IMPORT}class Own:\n{PARENTS[parent]}")
    config = {"auto_map": {"AutoTokenizer": [None, "tokenization_own.OwnTokenizerFast"]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    loaded = tokenizers.load(str(folder), trust_remote_code=trusted)
    written, line = tokenizers.for_readers(loaded, {}, tmp_path / "cache", trusted)
    saved = tmp_path / "saved"
    tokenizers.save(written, saved)
    expected = ids(Tokenizer.from_str(content))
    assert ids(loaded.backend) == expected
    reader = AutoTokenizer.from_pretrained(saved, trust_remote_code=trusted)
    assert ids(reader.backend_tokenizer) == expected
    kept = trusted and parent == "same"
    assert (type(reader).__name__ == "OwnTokenizerFast") == kept
    assert (saved / "own_words.py").is_file() == trusted
    assert (line is not None) == (trusted and parent == "other")

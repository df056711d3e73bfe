"""A GGUF file's tokenizer gives the ids of the tokenizer.json that it was converted from."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gguf_files import rewrite
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from ropewalk.conf.rope_methods import RopeConfig
from ropewalk.train.export import gguf_file
from ropewalk.train.export.gguf_tokens import LLAMA3, QWEN2
from ropewalk.train.gguf_base.convert import convert

TEXTS = [
    "In 1984 it's 3.14159 times 27182818; we'll see they're 100% done.",
    "def f(x):\n\treturn x**2  # ünïcødé, 東京, nai\u0308ve\n\n\n",
    "a  b   c\r\n  1,000,000\t2\u00a0x <|pad|> \U0001f9f5",
]
BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
SPLITS: dict[str, Any] = {
    "llama-bpe": [pre_tokenizers.Split(Regex(LLAMA3), "isolated"), BYTES],
    "qwen2": [pre_tokenizers.Split(Regex(QWEN2), "isolated"), BYTES],
    "smollm": [pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(add_prefix_space=False)],
    "gpt-2": [pre_tokenizers.ByteLevel(add_prefix_space=False)],
}


def bpe(name: str) -> Tokenizer:
    """Trained on texts that make the splits differ: numbers, contractions, runs of spaces."""
    tokenizer = Tokenizer(models.BPE())
    split = SPLITS[name]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(split) if len(split) > 1 else split[0]  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    if name == "qwen2":
        tokenizer.normalizer = normalizers.NFC()  # type: ignore[assignment]
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=["<|endoftext|>", "<|pad|>", "<|begin|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS * 30, trainer)
    return tokenizer


@pytest.mark.parametrize("name", SPLITS)
def test_the_ids_are_those_of_the_file_that_was_converted(
    name: str, pair: Callable[..., Any], tmp_path: Path
) -> None:
    kind = "qwen2" if name == "qwen2" else "llama"
    source = pair(
        RopeConfig(), kind, vocab_size=420, **({"head_dim": 16} if kind == "qwen2" else {})
    )
    hf = tmp_path / "hf"
    hf.mkdir()
    for file in source.hf.iterdir():
        (hf / file.name).write_bytes(file.read_bytes())
    trained = bpe(name)
    PreTrainedTokenizerFast(
        tokenizer_object=trained, bos_token="<|begin|>", eos_token="<|endoftext|>"
    ).save_pretrained(hf)
    gguf_file.write(hf, source.plan, tmp_path / "m.gguf", "f32", "tiny")
    convert(tmp_path / "m.gguf", tmp_path / "back")
    back = AutoTokenizer.from_pretrained(tmp_path / "back")
    for text in TEXTS:
        assert back(text, add_special_tokens=False).input_ids == trained.encode(text).ids
    assert (back.bos_token, back.eos_token) == ("<|begin|>", "<|endoftext|>")
    file = Tokenizer.from_file(str(tmp_path / "back" / "tokenizer.json"))
    assert file.encode(TEXTS[0]).ids == trained.encode(TEXTS[0]).ids


@pytest.mark.parametrize("adds", [True, False])
def test_the_token_before_a_text_is_added_where_the_file_asks_for_it(
    adds: bool, pair: Callable[..., Any], tmp_path: Path
) -> None:
    keys = {"tokenizer.ggml.add_bos_token": adds, "tokenizer.ggml.bos_token_id": 1}
    convert(rewrite(pair().gguf, tmp_path / "m.gguf", keys), tmp_path / "back")
    ids = AutoTokenizer.from_pretrained(tmp_path / "back")("rope").input_ids
    assert (ids[0] == 1) is adds

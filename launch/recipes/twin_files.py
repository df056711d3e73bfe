"""The base and the documents of a twin."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

CONFIG_LENGTHS = ("max_position_embeddings", "original_max_position_embeddings", "sliding_window")
SHARES = (1.5, 1.0, 0.7, 0.5, 0.3, 0.2, 0.1, 0.06, 0.03)
"""Lengths of documents over the longest sequence: one is longer than it, most are shorter."""
ROUNDS = 4
KV_HEADS = 2
"""Which two ranks share."""
SHORTEST = 8
WORDS = "the rope is laid in a long walk yarn upon strand until it holds"


def write_base(
    published: Mapping[str, Any], shrink: int, settings: Mapping[str, Any], folder: Path
) -> None:
    """The base's architecture with few layers, a narrow stream and a byte-level tokenizer.

    `published`: the base's config.json, whose windows are divided by `shrink`.
    """
    from transformers import AutoConfig

    from ropewalk.data import tokenizer as tokenizers
    from ropewalk.launch.check import small_model

    with TemporaryDirectory() as fewer_heads:
        values = with_fewer_heads(shrunken_config(published, shrink))
        (Path(fewer_heads) / "config.json").write_text(json.dumps(values))
        config = AutoConfig.from_pretrained(fewer_heads)
    small = small_model.small_config(config, settings["train"].get("sp_size", 1))
    small_model.write_small_model(small, settings.get("seed", 0), folder, trusted=False)
    tokenizers.save(tokenizers.train([WORDS], small_model.VOCABULARY), folder)


def shrunken_config(config: Mapping[str, Any], shrink: int) -> dict[str, Any]:
    """A config.json with its windows divided."""
    from ropewalk.launch.recipes.twin import shortened

    return {
        key: shortened(value, shrink)
        if key in CONFIG_LENGTHS and value
        else shrunken_config(value, shrink)
        if isinstance(value, Mapping)
        else value
        for key, value in config.items()
    }


def with_fewer_heads(config: dict[str, Any]) -> dict[str, Any]:
    """The same ratio of query to key and value heads, of the same size, with two of the latter."""
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    fewer = {
        "num_attention_heads": heads * KV_HEADS // kv_heads,
        "num_key_value_heads": KV_HEADS,
    }
    if "qk_rope_head_dim" not in config:
        fewer["head_dim"] = config.get("head_dim", config["hidden_size"] // heads)
    return config | fewer


def write_documents(settings: Mapping[str, Any], folder: Path) -> None:
    """A file, or a tree, for each source of every phase."""
    sources = dict(settings["data"]["sources"])
    for phase in settings.get("phases", []):
        for key, value in phase.items():
            if key.startswith("data.sources.") and isinstance(value, Mapping):
                sources[key.split(".")[2]] = value
    lengths = [phase.get("data.seq_len", 0) for phase in settings.get("phases", [])]
    longest = max(settings["data"]["seq_len"], *lengths, 0)
    for number, source in enumerate(sources.values()):
        texts = list(_texts(longest, source, number))
        path = folder / source["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        if source["kind"] == "tree":
            _write_tree(path, texts)
        else:
            path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


def _write_tree(folder: Path, texts: list[str]) -> None:
    for number, text in enumerate(texts):
        (folder / f"repository{number}").mkdir(parents=True, exist_ok=True)
        (folder / f"repository{number}" / "file.txt").write_text(text)


def _texts(longest: int, source: Mapping[str, Any], number: int) -> Iterator[str]:
    """Texts of as many bytes, which are the tokens, as the source takes."""
    least, most = source.get("min_len", SHORTEST), source.get("max_len", 2 * longest)
    for turn in range(ROUNDS):
        for index, share in enumerate(SHARES):
            length = min(max(int(share * longest), least + 2), most - 2)
            yield _text(length, 1 + number + 31 * turn + 7 * index)


def _text(length: int, seed: int) -> str:
    """Words in an order that arithmetic gives."""
    known = WORDS.split()
    words: list[str] = []
    state, size = seed, 0
    while size < length:
        state = (state * 1103515245 + 12345) % 2**31
        words.append(known[state // 2**16 % len(known)])
        size += len(words[-1]) + 1
    return " ".join(words)[:length]

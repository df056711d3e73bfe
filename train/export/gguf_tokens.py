"""A byte-level BPE tokenizer in GGUF's words: tokens, their types, merges, special ids, and which pre-tokenizer splits the text."""

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from ropewalk.train.export.gguf_rope import NotInGguf

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3, QWEN2 = CONTRACTIONS + r"\p{N}{1,3}" + REST, CONTRACTIONS + r"\p{N}" + REST


def read(folder: Path) -> dict[str, Any]:
    """tokenizer.json. Raises: NotInGguf for one that is not byte-level BPE."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise NotInGguf("it has no tokenizer.json")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if found["model"].get("type") != "BPE" or not any(
        s["type"] == "ByteLevel" for s in splitters(found)
    ):
        raise NotInGguf("its tokenizer is not byte-level BPE, the one kind that this export writes")
    return found


def splitters(tokenizer: dict[str, Any]) -> list[dict[str, Any]]:
    """The pre-tokenizer as a flat list."""
    top = tokenizer.get("pre_tokenizer") or {}
    steps: list[dict[str, Any]] = top.get("pretokenizers", [top]) if top else []
    return steps


def pre(tokenizer: dict[str, Any]) -> str | None:
    """llama.cpp's name for this pre-tokenizer; None where it has none that splits the same."""
    steps = splitters(tokenizer)
    kinds, last = [step["type"] for step in steps], steps[-1]
    normalizer = (tokenizer.get("normalizer") or {}).get("type")
    if last["type"] != "ByteLevel" or last.get("add_prefix_space"):
        return None
    if (
        kinds == ["Split", "ByteLevel"]
        and not last["use_regex"]
        and steps[0].get("behavior") == "Isolated"
    ):
        return {(LLAMA3, None): "llama-bpe", (QWEN2, "NFC"): "qwen2"}.get(
            (steps[0]["pattern"].get("Regex"), normalizer)
        )
    if normalizer is not None or not last.get("use_regex", True):
        return None
    if kinds == ["Digits", "ByteLevel"] and steps[0]["individual_digits"]:
        return "smollm"
    return "gpt-2" if kinds == ["ByteLevel"] else None


def vocabulary(tokenizer: dict[str, Any], rows: int) -> tuple[list[str], list[int]]:
    """Tokens and gguf.TokenType of each row of the embedding; rows without a word are unused. Raises: NotInGguf."""
    from gguf import TokenType

    words = {
        number: (word, TokenType.NORMAL) for word, number in tokenizer["model"]["vocab"].items()
    }
    for added in tokenizer["added_tokens"]:
        kind = TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED
        words[added["id"]] = (added["content"], kind)
    if max(words) >= rows:
        raise NotInGguf(f"its tokenizer has {max(words) + 1} words and the model {rows} embeddings")
    found = [words.get(row, (f"[PAD{row}]", TokenType.UNUSED)) for row in range(rows)]
    return [word for word, _ in found], [int(kind) for _, kind in found]


def add(writer: Any, folder: Path, rows: int) -> list[str]:
    """Write the tokenizer's keys. Returns warnings. Raises: NotInGguf."""
    from gguf import SpecialVocab

    tokenizer = read(folder)
    tokens, kinds = vocabulary(tokenizer, rows)
    known = pre(tokenizer)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(known or "default")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    special = SpecialVocab(folder, load_merges=True, n_vocab=rows)
    # said outright: llama.cpp's own default differs by pre-tokenizer
    special.add_special_token["bos"] = begins_with(folder, special.special_token_ids.get("bos"))
    special.add_to_gguf(writer, quiet=True)
    if known:
        return []
    return [
        "llama.cpp has no name for this tokenizer's way of splitting text (written as `default`): give it ids from the "
        "Hugging Face tokenizer, not text"
    ]


def begins_with(folder: Path, bos: int | None) -> bool:
    """Whether the tokenizer itself puts `bos` before a text."""
    ids = Tokenizer.from_file(str(folder / "tokenizer.json")).encode("a").ids
    return bos is not None and ids[:1] == [bos]

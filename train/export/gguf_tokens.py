"""A byte-level BPE tokenizer as GGUF keys: tokens, types, merges, special ids, pre-tokenizer."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer

from ropewalk.train.export.gguf_rope import GgufUnsupported

if TYPE_CHECKING:
    from gguf import GGUFWriter

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3, QWEN2 = CONTRACTIONS + r"\p{N}{1,3}" + REST, CONTRACTIONS + r"\p{N}" + REST


def read_tokenizer(folder: Path) -> dict[str, Any]:
    """The content of tokenizer.json. Raises: GgufUnsupported when it is not byte-level BPE."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise GgufUnsupported("it has no tokenizer.json")
    tokenizer: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    byte_level = any(step["type"] == "ByteLevel" for step in splitters(tokenizer))
    if tokenizer["model"].get("type") != "BPE" or not byte_level:
        raise GgufUnsupported("its tokenizer is not byte-level BPE, the only kind of this export")
    return tokenizer


def splitters(tokenizer: dict[str, Any]) -> list[dict[str, Any]]:
    """The pre-tokenizer as a flat list."""
    top = tokenizer.get("pre_tokenizer") or {}
    steps: list[dict[str, Any]] = top.get("pretokenizers", [top]) if top else []
    return steps


def pre_tokenizer_name(tokenizer: dict[str, Any]) -> str | None:
    """llama.cpp's name for this pre-tokenizer; None if none of its own splits text the same way."""
    steps = splitters(tokenizer)
    kinds, last = [step["type"] for step in steps], steps[-1]
    normalizer = (tokenizer.get("normalizer") or {}).get("type")
    if last["type"] != "ByteLevel" or last.get("add_prefix_space"):
        return None
    isolated = steps[0].get("behavior") == "Isolated"
    if kinds == ["Split", "ByteLevel"] and not last["use_regex"] and isolated:
        names = {(LLAMA3, None): "llama-bpe", (QWEN2, "NFC"): "qwen2"}
        return names.get((steps[0]["pattern"].get("Regex"), normalizer))
    if normalizer is not None or not last.get("use_regex", True):
        return None
    if kinds == ["Digits", "ByteLevel"] and steps[0]["individual_digits"]:
        return "smollm"
    return "gpt-2" if kinds == ["ByteLevel"] else None


def vocabulary(tokenizer: dict[str, Any], rows: int) -> tuple[list[str], list[int]]:
    """Token and `gguf.TokenType` of each embedding row; rows without a token are unused.

    Raises: GgufUnsupported when the model has fewer embeddings than the tokenizer has tokens.
    """
    from gguf import TokenType

    tokens = {row: (text, TokenType.NORMAL) for text, row in tokenizer["model"]["vocab"].items()}
    for added in tokenizer["added_tokens"]:
        kind = TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED
        tokens[added["id"]] = (added["content"], kind)
    if max(tokens) >= rows:
        raise GgufUnsupported(
            f"its tokenizer has {max(tokens) + 1} words and the model {rows} embeddings"
        )
    by_row = [tokens.get(row, (f"[PAD{row}]", TokenType.UNUSED)) for row in range(rows)]
    return [text for text, _ in by_row], [int(kind) for _, kind in by_row]


def add_tokenizer(writer: "GGUFWriter", folder: Path, rows: int) -> list[str]:
    """Write the tokenizer's keys. Returns warnings. Raises: GgufUnsupported."""
    from gguf import SpecialVocab

    tokenizer = read_tokenizer(folder)
    tokens, kinds = vocabulary(tokenizer, rows)
    pre_tokenizer = pre_tokenizer_name(tokenizer)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre_tokenizer or "default")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    special = SpecialVocab(folder, load_merges=True, n_vocab=rows)
    # Written explicitly, because llama.cpp's default depends on the pre-tokenizer.
    special.add_special_token["bos"] = adds_bos(folder, special.special_token_ids.get("bos"))
    special.add_to_gguf(writer, quiet=True)
    if pre_tokenizer:
        return []
    return [
        "llama.cpp has no name for this tokenizer's way of splitting text (written as `default`): "
        "give it ids from the Hugging Face tokenizer, not text"
    ]


def adds_bos(folder: Path, bos: int | None) -> bool:
    """Whether the tokenizer puts `bos` before a text by itself."""
    ids = Tokenizer.from_file(str(folder / "tokenizer.json")).encode("a").ids
    return bos is not None and ids[:1] == [bos]

"""Whether two tokenizers give the same ids: by what they are made of, else on probe texts."""

import json
from collections.abc import Iterator
from typing import Any

from tokenizers import Tokenizer

from ropewalk.data.tokenizer.failures import is_refusal

PROBES = (
    "The rope is 12 345.678 m long, laid on 2026-11-29 at 07:45; it's 3.14159e-10 of 1,000,000.",
    " leading,  two   three    four spaces and trailing  ",
    "\n\n\n  \n\t\tdef lay(yarns: list[int]) -> int:\n\t    return sum(y ** 2 for y in yarns) # x",
    "line\r\nline\r\n\r\n    four\r\n",
    'if (a[i]->b == NULL && c::d<e>(f)) { printf("%08x\\n", ~0u); }\n\n\n}\n',
    "I'm, you're, we'LL, they'VE, it'S, O'Neill, don\u2019t; HTTPServer camelCase snake_case",
    "Füße, naïve café, Ångström, İstanbul, e\u0301 n\u0303 \u1e9b\u0323 ﬁ ½ ² Ⅷ ０１２ＡＢＣ",
    "Привет, мир! Γειά σου Κόσμε. שלום עולם مرحبا بالعالم ١٢٣ नमस्ते १२३ สวัสดีชาวโลก",
    "敏捷的棕色狐狸跳过了懒狗。東京は日本の首都です、カタカナ。안녕하세요 세계 2026年11月29日",
    "🙂👍🏽👩‍👩‍👧‍👦🇩🇪 ☃️ ♥ → ∑∫√ \U0001f9f6\U00010348",
    "\u00a0no-break\u2003em\u200bzero\ufeffwidth\u2028line\u0000null\x07bell\x7f",
    "~~~~ ---- ==== .... ________ ###",
    "https://example.org/a?b=c&d=%20#e user@example.com <b>html</b> {{ jinja }} \\alpha_{1}^{2}",
    "a",
    " ",
    "\n",
    "1234567890" * 3,
    "aaaa" * 8,
    "▁under ▁ Ġbyte Ċ <0x0A> ##piece </w>",
)
"""Digits, spaces, code, contractions, accents, scripts, emoji, controls, and other kinds' marks."""
MAX_WORDS = 4096  # of the vocabulary, as probe texts
WORDS_PER_TEXT = 16


def content(tokenizer: Tokenizer) -> dict[str, Any]:
    """tokenizer.json without padding and truncation, which no text here has."""
    value: dict[str, Any] = json.loads(tokenizer.to_str())
    return {key: part for key, part in value.items() if key not in ("padding", "truncation")}


def first_difference(file: Tokenizer, other: Tokenizer) -> str | None:
    """A text whose ids differ between `file` and `other`, without special tokens around it.

    None for tokenizers of the same content, and for those that agree on every probe.
    """
    contents = [content(tokenizer) for tokenizer in (file, other)]
    for value in contents:
        value["post_processor"] = None
    if contents[0] == contents[1]:
        return None
    for special_as_text in (True, False):
        texts = [*PROBES, *_added_token_texts(file), *_vocabulary_texts(file)]
        ids = _encode(file, texts, special_as_text)
        try:
            other_ids = _encode(other, texts, special_as_text)
        except BaseException as error:
            if not is_refusal(error):
                raise
            return texts[0]
        for text, one, two in zip(texts, ids, other_ids, strict=True):
            if one != two:
                return text
    return None


def _encode(tokenizer: Tokenizer, texts: list[str], special_as_text: bool) -> list[list[int]]:
    before = tokenizer.encode_special_tokens
    tokenizer.encode_special_tokens = special_as_text
    tokenizer.no_padding()
    tokenizer.no_truncation()
    encodings = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
    tokenizer.encode_special_tokens = before
    return [encoding.ids for encoding in encodings]


def _added_token_texts(tokenizer: Tokenizer) -> Iterator[str]:
    for token in tokenizer.get_added_tokens_decoder().values():
        yield f"one{token.content}two {token.content} three\n{token.content}\n{token.content}"


def _vocabulary_texts(tokenizer: Tokenizer) -> Iterator[str]:
    """Words of the vocabulary as text, alone and beside each other, evenly spread over the ids."""
    size = tokenizer.get_vocab_size()
    ids = range(0, size, max(1, size // MAX_WORDS))
    words = [tokenizer.decode([i], skip_special_tokens=False) for i in ids]
    for start in range(0, len(words), WORDS_PER_TEXT):
        part = words[start : start + WORDS_PER_TEXT]
        yield "".join(part)
        yield " ".join(part)

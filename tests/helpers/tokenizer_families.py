"""Twelve families of tokenizers, built offline by the package tokenizers, with small vocabularies.

Each is made as its models' own are: normalizer, split, model, decoder, post-processor and added
tokens.
"""

from collections.abc import Callable
from functools import cache

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

TEXTS = [
    "The rope is laid in the long walk, yarn upon yarn; it's 12345678 yards, don't you know?",
    "def lay(yarns):\n    return [twist(x) for x in yarns if x != None]\n\n\n# 2026-11-29 07:45\n",
    "Füße, naïve café, Ångström. Привет, мир! 敏捷的棕色狐狸。東京は日本の首都です。안녕 🙂👍🏽",
    "numbers 1 22 333 4444 55555 666666 3.14159 1,000,000 and  two   three    four spaces\t\ttabs",
] * 40
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+"
    r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
DEEPSEEK = [
    Regex(r"\p{N}{1,3}"),
    Regex(r"[一-龥぀-ゟ゠-ヿ]+"),
    Regex(
        r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
        r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
]


def byte_level(*splits: Regex, normalizer: object = None, use_regex: bool = False) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    isolated = [pre_tokenizers.Split(split, "isolated") for split in splits]
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*isolated, last]) if splits else last  # type: ignore[assignment]
    if normalizer is not None:
        tokenizer.normalizer = normalizer  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<|endoftext|>", "<|pad|>", "<|begin|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def llama3() -> Tokenizer:
    """With the template that puts the begin token before a text."""
    tokenizer = byte_level(Regex(LLAMA3))
    tokenizer.post_processor = processors.Sequence(  # type: ignore[assignment]
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single="<|begin|> $A",
                pair="<|begin|> $A <|begin|> $B:1",
                special_tokens=[("<|begin|>", 2)],
            ),
        ]
    )
    return tokenizer


def added_tokens() -> Tokenizer:
    """GPT-NeoX's kind: runs of spaces and words as tokens that strip, or match normalised text."""
    tokenizer = byte_level(normalizer=normalizers.NFC(), use_regex=True)
    tokenizer.add_tokens(
        [
            AddedToken("    ", normalized=True, special=False),
            AddedToken("<think>", normalized=False, lstrip=True, rstrip=True, special=False),
            AddedToken("yarns", single_word=True, normalized=True, special=False),
        ]
    )
    tokenizer.add_special_tokens([AddedToken("<|im_end|>", lstrip=False, rstrip=True)])
    return tokenizer


def sentencepiece_bpe() -> Tokenizer:
    """Llama 2's: a space before the text, blanks as one letter, bytes for unknown letters."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(  # type: ignore[assignment]
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)])  # type: ignore[assignment]
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=special, show_progress=False)
    words = [word for text in TEXTS for word in text.split(" ")]
    tokenizer.train_from_iterator(words, trainer)
    return tokenizer


def unigram() -> Tokenizer:
    """T5's kind: blanks as a letter before each word, pieces by their probability."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.Sequence(  # type: ignore[assignment]
        [normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()  # type: ignore[assignment]
    tokenizer.decoder = decoders.Metaspace()  # type: ignore[assignment]
    trainer = trainers.UnigramTrainer(
        vocab_size=400,
        special_tokens=["<pad>", "</s>", "<unk>"],
        unk_token="<unk>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def word_piece() -> Tokenizer:
    """BERT's."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))  # type: ignore[call-arg]
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)  # type: ignore[assignment]
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()  # type: ignore[assignment]
    tokenizer.decoder = decoders.WordPiece()  # type: ignore[assignment]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=500, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(TEXTS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return tokenizer


def word_level() -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()  # type: ignore[assignment]
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    trainer = trainers.WordLevelTrainer(
        vocab_size=200, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


FAMILIES: dict[str, Callable[[], Tokenizer]] = {
    "llama3": llama3,
    "qwen2": lambda: byte_level(Regex(QWEN2), normalizer=normalizers.NFC()),
    "gpt2": lambda: byte_level(use_regex=True),
    "deepseek": lambda: byte_level(*DEEPSEEK),
    "o200k": lambda: byte_level(Regex(O200K)),
    "digits": lambda: byte_level(Regex(r"\p{N}"), use_regex=True),
    "lowercase": lambda: byte_level(
        normalizer=normalizers.Sequence([normalizers.NFD(), normalizers.Lowercase()]),
        use_regex=True,
    ),
    "added_tokens": added_tokens,
    "sentencepiece_bpe": sentencepiece_bpe,
    "unigram": unigram,
    "word_piece": word_piece,
    "word_level": word_level,
}


@cache
def tokenizer_json(family: str) -> str:
    return FAMILIES[family]().to_str()

"""Small tokenizers of the families in use, trained here, and texts that are hard to cut."""

import random
from collections.abc import Callable

from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

LLAMA3, QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
    + digits
    + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    for digits in (r"\p{N}{1,3}", r"\p{N}")
)
DEEPSEEK = (
    r"\p{N}{1,3}",
    "[一-龥぀-ゟ゠-ヿ]+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
)
WORDS = [
    "日本", "中文字", "é", "e\u0301", "don't", "I'll", "😀", "12345", "99", "...", "!!", "ß", "ﬁ",
    "a" * 5, "a" * 8, "a" * 16,
]  # fmt: skip
SEPARATORS = [" "] * 8 + ["\n", "\n\n", "  ", "    ", ", ", ". ", "\t", "\r\n", " " * 16, ""]


def prose(words: int, seed: int = 0) -> str:
    """Words of random letters and of WORDS, with separators of all kinds."""
    rng, vocabulary = random.Random(seed), random.Random(0)
    letters = [
        "".join(vocabulary.choices("etaoinshrdlu", k=vocabulary.randint(1, 9))) for _ in range(300)
    ]
    pairs = (rng.choice(letters + WORDS) + rng.choice(SEPARATORS) for _ in range(words))
    return "".join(pairs)


TRAINING = [prose(200, seed) for seed in range(24)]


def split(pattern: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Split(Regex(pattern), "isolated")


def byte_level(*patterns: str, prefix: bool = False, nfc: bool = False, **model: bool) -> Tokenizer:
    """A byte-level BPE behind the splits of `patterns`; without any: GPT-2's own."""
    tokenizer = Tokenizer(models.BPE(**model))
    if nfc:
        tokenizer.normalizer = normalizers.NFC()  # type: ignore[assignment]
    parts = [split(pattern) for pattern in patterns]
    last = pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=not patterns)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*parts, last])  # type: ignore[assignment]
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TRAINING, trainer)
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)  # type: ignore[assignment]
    return tokenizer


def llama2() -> Tokenizer:
    """A BPE over the full text, without a pre-tokenizer: Prepend, Replace, byte fallback."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()  # type: ignore[assignment]
    alphabet = sorted(set("".join(TRAINING)) - set("😀中文字"))
    trainer = trainers.BpeTrainer(
        vocab_size=900,
        special_tokens=["<unk>", *(f"<0x{byte:02X}>" for byte in range(256))],
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TRAINING, trainer)
    steps = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    tokenizer.normalizer = normalizers.Sequence(steps)  # type: ignore[assignment]
    tokenizer.pre_tokenizer = None  # type: ignore[assignment]
    return tokenizer


def unigram(scheme: str = "always") -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()  # type: ignore[assignment]
    metaspace = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    tokenizer.pre_tokenizer = metaspace  # type: ignore[assignment]
    trainer = trainers.UnigramTrainer(
        vocab_size=500, unk_token="<unk>", special_tokens=["<unk>"], show_progress=False
    )
    tokenizer.train_from_iterator(TRAINING, trainer)
    return tokenizer


def word_piece() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))  # type: ignore[call-arg]
    tokenizer.normalizer = normalizers.BertNormalizer()  # type: ignore[assignment]
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()  # type: ignore[assignment]
    trainer = trainers.WordPieceTrainer(
        vocab_size=500, special_tokens=["[UNK]"], show_progress=False
    )
    tokenizer.train_from_iterator(TRAINING, trainer)
    return tokenizer


FAMILIES: dict[str, Callable[[], Tokenizer]] = {
    "gpt2": byte_level,
    "roberta": lambda: byte_level(prefix=True),
    "llama3": lambda: byte_level(LLAMA3, ignore_merges=True),
    "qwen": lambda: byte_level(QWEN, nfc=True),
    "deepseek": lambda: byte_level(*DEEPSEEK),
    "words joined": lambda: byte_level("$^"),  # no split: tokens may hold spaces inside
    "llama2": llama2,
    "unigram": unigram,
    "unigram, first": lambda: unigram("first"),
    "word piece": word_piece,
}


def hard_texts(size: int) -> dict[str, str]:
    """Texts of about `size` characters without a usual place to cut, and prose."""
    rng = random.Random(1)
    return {
        "prose": prose(size // 5, 7),
        "one letter": "a" * size,
        "one letter after a word": "x " + "a" * size,
        "spaces": "x" + " " * size + "y",
        "newlines": "x" + "\n" * size + "y",
        "spaces before a newline": "x" + " " * (size // 2) + "\n" + " " * (size // 2) + "z",
        "white space": "x" + "".join(rng.choices(" \n\t\r", k=size)) + "y",
        "digits": "1234567" * (size // 7),
        "CJK": "".join(rng.choices("日本中文字東京大学の。、", k=size)),
        "accents": "e\u0301" * (size // 2),
        "marks": "e" + "\u0301\u0323" * (size // 2),  # NFC sorts all of them
        "emoji": "😀👨‍👩‍👧" * (size // 6),
        "exclamation marks": "!" * size,
        "two letters": "".join(rng.choices("ab", k=size)),
        "without spaces": "".join(rng.choices("etaoinsh.,;'0123!", k=size)),
        "CRLF": "ab\r\n" * (size // 4),
        "contractions": "don't'll's" * (size // 10),
        "unknown": "ॐ" * size,
        "CJK with spaces": "日本 中文\n" * (size // 6),
    }

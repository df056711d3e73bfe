"""The tokenizer of a run: loaded from the base, or trained on the sources for a base made from scratch."""

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers import models as bpe
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from ropewalk.conf.artifacts.manifest import fingerprint
from ropewalk.conf.errors import ConfigError

OF_THE_MACHINE = {
    "is_local",
    "local_files_only",
    "name_or_path",
    "cache_dir",
    "_commit_hash",
    "transformers_version",
}
SPECIAL = ("<|endoftext|>", "<|pad|>")


def load(
    path: str, revision: str | None = None, trust_remote_code: bool = False
) -> PreTrainedTokenizerBase:
    """From a folder or hub name. Raises: ConfigError when there is none, or none with a fast backend."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            path, revision=revision, trust_remote_code=trust_remote_code
        )
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"model.path is {path}; it must hold a tokenizer; {str(error).splitlines()[0]}"
        ) from error
    if not tokenizer.is_fast:
        raise ConfigError(
            f"model.path is {path}; its tokenizer has no fast backend (tokenizer.json); "
            "convert it with transformers and save it beside the model"
        )
    return tokenizer


def train(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerBase:
    """Byte-level BPE that splits digits one by one: with multi-digit words a tiny model learns to copy numbers far later."""
    tokenizer = Tokenizer(bpe.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(  # type: ignore[assignment]
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=SPECIAL[0], pad_token=SPECIAL[1]
    )


def identity(tokenizer: PreTrainedTokenizerBase) -> str:
    """Fingerprint of what decides ids: tokenizer.json without its padding and truncation."""
    content = json.loads(backend(tokenizer).to_str())
    content["padding"] = content["truncation"] = None
    return fingerprint(content)


def saved_identity(tokenizer: PreTrainedTokenizerBase) -> str:
    """Fingerprint of what `save` writes beside tokenizer.json: special tokens, the chat template and the like, which go into the
    trained model, without what differs by machine."""
    with TemporaryDirectory() as made:
        save(tokenizer, Path(made))
        files = [
            path
            for path in Path(made).rglob("*")
            if path.is_file() and path.name != "tokenizer.json"
        ]
        return fingerprint({path.relative_to(made).as_posix(): _canonical(path) for path in files})


def _canonical(path: Path) -> Any:
    if path.suffix != ".json":
        return hashlib.sha256(path.read_bytes()).hexdigest()
    content = json.loads(path.read_text(encoding="utf-8"))
    return {key: value for key, value in content.items() if key not in OF_THE_MACHINE}


def size(tokenizer: PreTrainedTokenizerBase) -> int:
    """The vocabulary's size: its largest id and one more. There may be holes, so words are not counted."""
    return int(max(tokenizer.get_vocab().values())) + 1


def backend(tokenizer: PreTrainedTokenizerBase) -> Tokenizer:
    """The Rust tokenizer, free of padding and truncation, which would change ids in silence, and blind to special words:
    a document that spells `<|endoftext|>` does not end there."""
    inner: Tokenizer = tokenizer.backend_tokenizer  # type: ignore[attr-defined]
    inner.no_padding()
    inner.no_truncation()
    inner.encode_special_tokens = True
    return inner


def encode_ids(tokenizer: PreTrainedTokenizerBase) -> Callable[[str], np.ndarray]:
    """Text -> ids (tokens,) int64 without special tokens."""
    inner = backend(tokenizer)
    return lambda text: np.asarray(inner.encode(text, add_special_tokens=False).ids, dtype=np.int64)


def token_id(tokenizer: PreTrainedTokenizerBase, key: str, word: str) -> int:
    """Id of the token that setting `key` names: by its string, or `bos` and `eos` for the tokenizer's own.

    Raises: ConfigError for a token that the tokenizer lacks.
    """
    token = getattr(tokenizer, f"{word}_token") if word in ("bos", "eos") else word
    found = backend(tokenizer).token_to_id(token) if token else None
    if found is None:
        own = [str(t) for t in (tokenizer.eos_token, tokenizer.bos_token) if t]
        raise ConfigError(
            f"{key} is {word}; it must be one token of the model's tokenizer, which has no such; "
            f"choose one that it has{f', such as {own[0]}' if own else ''}, or unset {key}"
        )
    return int(found)


def save(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    tokenizer.save_pretrained(str(folder))

"""The tokenizer of a run: loaded from the base, or trained for a base made from scratch."""

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers import models as bpe
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from ropewalk.conf.artifacts.manifest import fingerprint
from ropewalk.conf.errors import ConfigError

MACHINE_KEYS = {
    "is_local", "local_files_only", "name_or_path", "cache_dir", "_commit_hash",
    "transformers_version",
}  # fmt: skip
EOS, PAD = "<|endoftext|>", "<|pad|>"


def load(
    path: str, revision: str | None = None, trust_remote_code: bool = False
) -> PreTrainedTokenizerBase:
    """From a folder or a Hub name.

    Raises: ConfigError when it is missing or has no fast backend.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            path, revision=revision, trust_remote_code=trust_remote_code
        )
    except (OSError, ValueError) as error:
        if "trust_remote_code" in str(error) and not trust_remote_code:
            raise ConfigError(
                f"model.path is {path}; its tokenizer is code of its own, which is not run "
                "unasked; read that code and set model.trust_remote_code=true, or choose another "
                "model"
            ) from error
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
    """Train a byte-level BPE with single digits.

    With tokens of several digits a tiny model learns to copy numbers far later.
    """
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
        special_tokens=[EOS, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=EOS, pad_token=PAD)


def encoding_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Fingerprint of tokenizer.json without padding and truncation: equal ones give equal ids."""
    content = json.loads(backend(tokenizer).to_str())
    content["padding"] = content["truncation"] = None
    return fingerprint(content)


def files_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Fingerprint of the other files that `save` writes, without keys that differ by machine.

    They hold special tokens, the chat template and the like, and are copied into the trained model.
    """
    with TemporaryDirectory() as name:
        folder = Path(name)
        save(tokenizer, folder)
        paths = [p for p in folder.rglob("*") if p.is_file() and p.name != "tokenizer.json"]
        return fingerprint({p.relative_to(folder).as_posix(): _canonical(p) for p in paths})


def _canonical(path: Path) -> object:
    if path.suffix != ".json":
        return hashlib.sha256(path.read_bytes()).hexdigest()
    content = json.loads(path.read_text(encoding="utf-8"))
    return {key: value for key, value in content.items() if key not in MACHINE_KEYS}


def vocab_size(tokenizer: PreTrainedTokenizerBase) -> int:
    """The largest id plus one; ids may have gaps, so it can exceed the number of tokens."""
    return int(max(tokenizer.get_vocab().values())) + 1


def backend(tokenizer: PreTrainedTokenizerBase) -> Tokenizer:
    """The Rust tokenizer, without padding and truncation.

    Special tokens in a text are encoded as text: a document that contains `<|endoftext|>` does not
    end there.
    """
    rust_tokenizer: Tokenizer = tokenizer.backend_tokenizer  # type: ignore[attr-defined]
    rust_tokenizer.no_padding()
    rust_tokenizer.no_truncation()
    rust_tokenizer.encode_special_tokens = True
    return rust_tokenizer


def text_encoder(tokenizer: PreTrainedTokenizerBase) -> Callable[[str], np.ndarray]:
    """A function from a text to token ids (tokens,) int64, without special tokens."""
    rust_tokenizer = backend(tokenizer)

    def encode(text: str) -> np.ndarray:
        ids = rust_tokenizer.encode(text, add_special_tokens=False).ids
        return np.asarray(ids, dtype=np.int64)

    return encode


def token_id(tokenizer: PreTrainedTokenizerBase, key: str, name: str) -> int:
    """Id of the token `name` in setting `key`: `bos`, `eos` or the token's string.

    Raises: ConfigError for a token that the tokenizer lacks.
    """
    token = getattr(tokenizer, f"{name}_token") if name in ("bos", "eos") else name
    number = backend(tokenizer).token_to_id(token) if token else None
    if number is None:
        existing = [str(t) for t in (tokenizer.eos_token, tokenizer.bos_token) if t]
        example = f", such as {existing[0]}" if existing else ""
        raise ConfigError(
            f"{key} is {name}; it must be one token of the model's tokenizer, which has no such; "
            f"choose one that it has{example}, or unset {key}"
        )
    return int(number)


def save(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    tokenizer.save_pretrained(str(folder))

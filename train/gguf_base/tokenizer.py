"""The tokenizer of a GGUF file, which splits text as `tokenizer.ggml.pre` says.

transformers takes GPT-2's split for each name that it does not know, without a word.
"""

from pathlib import Path

from tokenizers import Tokenizer, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

from ropewalk.train.gguf_base.header import Header

GPT2 = ("gpt-2", "gpt2", "phi-2", "jina-es", "jina-de", "jina-v2-es", "jina-v2-de")
DIGITS = ("smollm", "starcoder", "refact", "command-r", "codeshell")
"""llama.cpp's names for GPT-2's split after single digits."""
NFC = ("qwen2", "deepseek-r1-qwen", "megrez")  # of Qwen 2's tokenizers, which normalise first


def tokenizer_of(file: Path, header: Header) -> PreTrainedTokenizerFast:
    """Raises: ConfigError for a split or a kind of tokenizer that is not known."""
    kind = header.keys.get("tokenizer.ggml.model")
    if kind not in ("gpt2", "llama"):
        raise header.refusal("tokenizer.ggml.model", kind, "it is gpt2 (byte-level BPE) or llama")
    read = AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name)
    backend: Tokenizer = read.backend_tokenizer
    if kind == "gpt2":
        _set_split(backend, header)
    _set_begin(backend, header)
    # Another class would put its own split in place of the file's when it is loaded again.
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **_special_tokens(read))
    tokenizer.chat_template = read.chat_template
    tokenizer.model_max_length = header.model_keys["context_length"]
    return tokenizer


def _set_split(backend: Tokenizer, header: Header) -> None:
    pre = header.keys.get("tokenizer.ggml.pre", "not set")
    if pre in NFC:
        backend.normalizer = normalizers.NFC()  # type: ignore[assignment]
    if pre in DIGITS:
        backend.pre_tokenizer = pre_tokenizers.Sequence(  # type: ignore[assignment]
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False),
            ]
        )
    elif pre not in (*GPT2, *GGUF_PRE_TOKENIZER_SPLITS):
        raise header.refusal(
            "tokenizer.ggml.pre", pre, "it must name a way of splitting text that is known here"
        )


def _set_begin(backend: Tokenizer, header: Header) -> None:
    """The token before a text by itself, where the file asks for one."""
    bos = header.keys.get("tokenizer.ggml.bos_token_id")
    default = header.keys["tokenizer.ggml.model"] == "llama"  # llama.cpp's, for sentencepiece
    if bos is None or not header.keys.get("tokenizer.ggml.add_bos_token", default):
        return
    token = backend.id_to_token(int(bos))
    backend.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
        single=f"{token} $A", pair=f"{token} $A {token}:1 $B:1", special_tokens=[(token, int(bos))]
    )


def _special_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, str]:
    names = ("bos_token", "eos_token", "unk_token", "pad_token")
    return {name: str(token) for name in names if (token := getattr(tokenizer, name)) is not None}

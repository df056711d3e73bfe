"""Train a byte-level BPE for a base that is made from scratch."""

import json
from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers import models as bpe

from ropewalk.data.tokenizer.folder import CONFIG, TOKENIZER
from ropewalk.data.tokenizer.run_tokenizer import RunTokenizer

EOS, PAD = "<|endoftext|>", "<|pad|>"
FILES = {
    # the class name that versions 4 and 5 of transformers know
    "tokenizer_class": "PreTrainedTokenizerFast",
    "eos_token": EOS,
    "pad_token": PAD,
}


def train(texts: Iterable[str], vocab_size: int) -> RunTokenizer:
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
    files = {TOKENIZER: tokenizer.to_str(pretty=True), CONFIG: json.dumps(FILES, indent=2) + "\n"}
    return RunTokenizer.of("scratch", {name: text.encode() for name, text in files.items()}, {})

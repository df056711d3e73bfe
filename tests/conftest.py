"""Shared fixtures. Nothing heavy is imported before a test asks for it."""

from typing import Any

import pytest
from hypothesis import settings

# the first example of a test may wait for an import, on a busy machine for seconds
settings.register_profile("ropewalk", deadline=None)
settings.load_profile("ropewalk")

TEXTS = [
    "The rope is laid in the long walk, yarn upon yarn, strand upon strand.",
    "What is the pass key? The pass key is 12345. Remember it. 12345 is the pass key.\n",
    "def lay(yarns):\n    return twist(strand for strand in yarns)\n",
]


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    """A byte-level BPE of 300 words, trained in a moment, as transformers has it."""
    from transformers import PreTrainedTokenizerFast

    from ropewalk.data import tokenizer as tokenizers

    backend = tokenizers.train(TEXTS * 20, 300).backend
    special = {"eos_token": "<|endoftext|>", "pad_token": "<|pad|>"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **special)

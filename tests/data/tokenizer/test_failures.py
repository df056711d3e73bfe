"""A text that a tokenizer cannot encode is one line; any other error stays what it is."""

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from ropewalk.conf.errors import ConfigError
from ropewalk.data.tokenizer.failures import is_refusal
from ropewalk.data.tokens.encode import encode_with


def test_a_document_without_a_token_for_its_words_is_one_line() -> None:
    tokenizer = Tokenizer(models.WordLevel({"rope": 0}))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    encode = encode_with(tokenizer)
    assert [ids.tolist() for ids in encode(["rope rope"])] == [[0, 0]]
    with pytest.raises(Exception, match="UNK") as from_tokenizers:
        tokenizer.encode("walk")
    assert is_refusal(from_tokenizers.value)
    with pytest.raises(ConfigError, match="^model.path has a tokenizer that cannot encode every"):
        encode(["rope walk"])


def test_errors_of_others_are_no_refusals() -> None:
    assert not is_refusal(KeyboardInterrupt()) and not is_refusal(ValueError("x"))
    panic = type("PanicException", (BaseException,), {})
    assert is_refusal(panic())

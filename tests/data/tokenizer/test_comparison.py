"""Tokenizers that differ where few texts show it: in the text of a special token, or in its id."""

from tokenizers import Tokenizer, models

from ropewalk.data.tokenizer.comparison import first_difference


def tokenizer(merges: bool = False, special: tuple[str, ...] = ("<q>", "<z>")) -> Tokenizer:
    """Four letters, a token a character; `merges`: joins `<q`, which no other text here has."""
    vocabulary = {letter: number for number, letter in enumerate("q><z")}
    vocabulary["<q" if merges else "qq"] = 4
    made = Tokenizer(models.BPE(vocabulary, [("<", "q")] if merges else []))
    made.add_special_tokens([*special])
    return made


def test_a_difference_inside_the_text_of_a_special_token_is_seen() -> None:
    """Documents are encoded with special tokens as text."""
    one, other = tokenizer(), tokenizer(merges=True)
    assert one.encode("<q>").ids == other.encode("<q>").ids == [5]
    found = first_difference(one, other)
    assert found is not None and "<q>" in found
    one.encode_special_tokens = other.encode_special_tokens = True
    assert (one.encode("<q>").ids, other.encode("<q>").ids) == ([2, 0, 1], [4, 1])


def test_another_id_of_a_special_token_is_seen() -> None:
    assert first_difference(tokenizer(), tokenizer()) is None
    found = first_difference(tokenizer(), tokenizer(special=("<z>", "<q>")))
    assert found is not None and "<" in found

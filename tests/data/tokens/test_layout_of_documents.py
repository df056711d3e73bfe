"""Boundary tokens and documents of a store against plain slices of lists."""

import hashlib
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, processors

from ropewalk.data.tokens.encode import encode_with
from ropewalk.data.tokens.store import BoundaryTokens, ShardedTokens, Store


def store(tokens: Any, offset: list[int], length: list[int]) -> Store:
    count = len(length)
    heldout, key = np.array([True, False, True][:count]), np.zeros(count, np.uint64)
    names = [str(n) for n in range(count)]
    return Store(tokens, np.array(offset), np.array(length), heldout, key, names, {}, "ab" * 20)


@pytest.mark.parametrize(("begin", "before"), [(None, []), (1, [1]), ([3, 4], [3, 4])])
@pytest.mark.parametrize(("end", "after"), [(None, []), (2, [2]), ((5, 6, 5), [5, 6, 5])])
def test_boundary_tokens_stand_around_a_document(
    begin: Any, before: list[int], end: Any, after: list[int]
) -> None:
    marks = BoundaryTokens(begin, end)
    assert (marks.before, marks.count) == (len(before), len(before) + len(after))
    two = store(np.arange(10, 18), [0, 3], [3, 5])
    for number, text in enumerate(([10, 11, 12], [13, 14, 15, 16, 17])):
        every = [*before, *text, *after]
        assert marks.lay_out(np.array(text)).tolist() == every
        for start, stop in product(range(len(every)), range(1, len(every) + 1)):
            if start >= stop:
                continue
            part = marks.read(two, number, start, stop - start)
            assert part.tolist() == every[start:stop], (start, stop)
            rest = marks.lay_out(np.array(text), start)
            assert rest.tolist() == every[start:]
        virtual = np.arange(len(every) + 1)
        held = [sum(t >= 10 for t in every[:n]) for n in virtual]
        assert marks.stored(virtual, np.array(len(text))).tolist() == held


def test_a_document_is_read_from_a_token_on() -> None:
    two = store(np.arange(10, 18), [0, 3], [3, 5])
    assert two.document(1).tolist() == [13, 14, 15, 16, 17]
    assert two.document(1, 2).tolist() == [15, 16, 17]
    assert two.document(1, 2, 2).tolist() == [15, 16]


def test_a_slice_is_found_in_its_shard(tmp_path: Path) -> None:
    files = []
    for number, values in enumerate(([1, 2, 3], [], [4, 5])):
        np.array(values, np.uint16).tofile(tmp_path / f"{number}")
        files.append(tmp_path / f"{number}")
    tokens = ShardedTokens(files, [3, 0, 2], np.dtype(np.uint16))
    assert len(tokens) == 5
    parts = {(0, 3): [1, 2, 3], (1, 2): [2], (3, 5): [4, 5], (4, 5): [5], (2, 3): [3]}
    for (low, high), expected in parts.items():
        assert tokens[low:high].tolist() == expected
    with pytest.raises(AssertionError, match="one shard"):
        tokens[2:4]


def test_a_store_is_named_by_sixteen_digits() -> None:
    three = store(np.arange(6), [0, 1, 3], [1, 2, 3])
    expected = hashlib.sha256(bytes([0b10100000])).hexdigest()
    assert three.heldout_digest == expected[:16] and three.cache_name == "ab" * 8
    assert three.heldout_counts() == {"heldout_documents": 2, "heldout_tokens": 4}


def test_a_tokenizer_that_adds_a_token_adds_none_here() -> None:
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "<s>": 1}, unk_token="a"))
    tokenizer.add_special_tokens(["<s>"])
    tokenizer.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    assert tokenizer.encode("a").ids == [1, 0]
    (ids,) = encode_with(tokenizer)(["a"])
    assert ids.tolist() == [0] and ids.dtype == np.uint32

"""Sample sequences as text; tests/data/test_stage_ledger.py compares them with the sources."""

import numpy as np

from ropewalk.data.dataset import concatenate
from ropewalk.data.ledger.samples import SIDE, harmless, page, sample_numbers


def decode(ids: np.ndarray) -> str:
    return " ".join(map(str, ids.tolist()))


def page_of(lengths: list[int], seq_len: int, **layout: bool) -> list[str]:
    documents = [np.arange(n) + 1000 * number for number, n in enumerate(lengths)]
    row = concatenate(documents, seq_len, **layout)
    names = [f"s: d{number}" for number in range(len(lengths))]
    return list(page(row, names, np.full(len(lengths), 10), np.array(lengths), decode))


def test_a_page_by_hand() -> None:
    assert page_of([3, 2], 8) == [
        "  s: d0, tokens 10 to 12 of it; in the sequence 0 to 2, positions 0 to 2",
        "    | 0 1 2",
        "  s: d1, tokens 10 to 11 of it; in the sequence 3 to 4, positions 0 to 1",
        "    | 1000 1001",
        "  3 tokens of padding",
    ]
    assert page_of([3, 2], 5, restart_positions=False)[2].endswith(
        "in the sequence 3 to 4, positions 3 to 4"
    )


def test_a_page_shows_both_ends_of_a_long_piece_and_of_many_pieces() -> None:
    head, first, gap, last = page_of([3 * SIDE], 3 * SIDE)
    assert first.split()[1:] == [str(n) for n in range(SIDE)]
    assert last.split()[1:] == [str(n) for n in range(2 * SIDE, 3 * SIDE)]
    assert gap == f"    | [... {SIDE} tokens ...]"
    many = page_of([1] * 40, 40)
    assert sum(line.startswith("  s: d") for line in many) == 8 + 4
    assert "  ... 28 pieces between ..." in many and "s: d39" in many[-2]


def test_a_hash_of_the_seed_selects_the_sequences() -> None:
    draws = [sample_numbers(1000, 5, seed) for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    assert len(set(draws[0])) == 5 and sample_numbers(1000, 3, 0) == draws[0][:3]


def test_a_document_cannot_steer_the_terminal() -> None:
    assert harmless("a\x1b[2Jb\r\tc\n\u202ed\x00") == "a\\x1b[2Jb\\r\tc\n\\u202ed\\x00"
    assert harmless("Größe, 漢字, مرحبا") == "Größe, 漢字, مرحبا"

"""Sample sequences to read; tests/data/test_stage.py holds them against the files they were made from."""

import numpy as np

from ropewalk.data.dataset import concatenate
from ropewalk.data.ledger.samples import FIRST, LAST, SIDE, chosen, harmless, page


def words(ids: np.ndarray) -> str:
    return " ".join(map(str, ids.tolist()))


def shown(lengths: list[int], seq_len: int, **how: bool) -> list[str]:
    row = concatenate([np.arange(n) + 1000 * at for at, n in enumerate(lengths)], seq_len, **how)
    named = [f"s: d{at}" for at in range(len(lengths))]
    return list(page(row, named, np.full(len(lengths), 10), np.array(lengths), words))


def test_a_page_by_hand() -> None:
    assert shown([3, 2], 8) == [
        "  s: d0, tokens 10 to 12 of it; in the sequence 0 to 2, positions 0 to 2",
        "    | 0 1 2",
        "  s: d1, tokens 10 to 11 of it; in the sequence 3 to 4, positions 0 to 1",
        "    | 1000 1001",
        "  3 tokens of padding",
    ]
    assert shown([3, 2], 5, restart_positions=False)[2].endswith(
        "in the sequence 3 to 4, positions 3 to 4"
    )


def test_of_a_long_piece_both_ends_are_shown_and_of_many_pieces_the_outer_ones() -> None:
    head, first, gap, last = shown([3 * SIDE], 3 * SIDE)
    assert first.split()[1:] == [str(n) for n in range(SIDE)]
    assert last.split()[1:] == [str(n) for n in range(2 * SIDE, 3 * SIDE)]
    assert gap == f"    | [... {SIDE} tokens ...]"
    many = shown([1] * 40, 40)
    assert sum(line.startswith("  s: d") for line in many) == FIRST + LAST
    assert f"  ... {40 - FIRST - LAST} pieces between ..." in many and "s: d39" in many[-2]


def test_which_are_shown_is_a_hash_of_the_seed() -> None:
    draws = [chosen(1000, 5, seed) for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]
    assert len(set(draws[0])) == 5 and chosen(1000, 3, 0) == draws[0][:3]


def test_a_document_cannot_steer_the_terminal() -> None:
    assert harmless("a\x1b[2Jb\r\tc\n\u202ed\x00") == "a\\x1b[2Jb\\r\tc\n\\u202ed\\x00"
    assert harmless("Größe, 漢字, مرحبا") == "Größe, 漢字, مرحبا"

"""Window fill over a million synthetic documents: seconds, fill, and how many documents it cuts."""

import time
from typing import Any

import common
import numpy as np

DOCUMENTS, MOST = 1_000_000, 500_000
PEER = "documents end to end, cut at every border"


# -- in the child ------------------------------------------------------------------------------------------------------


def lengths(count: int) -> np.ndarray:
    """Lognormal, median 1,000 tokens, sigma 1.3; one in a hundred of median 30,000, sigma 1.1; at most 500,000."""
    rng = np.random.default_rng(0)
    short = rng.lognormal(np.log(1000), 1.3, count)
    long = rng.lognormal(np.log(30_000), 1.1, count)
    mixed = np.where(rng.random(count) < 0.01, long, short)
    return np.clip(mixed, 1, MOST).astype(np.int64)


def pack(count: int, seq_len: int) -> dict[str, float]:
    """CPU seconds of `data.pack.window_fill`, and what it made."""
    from ropewalk.data.pack import window_fill

    sizes = lengths(count)
    given = list(enumerate(sizes.tolist()))
    started = time.process_time()
    made = list(window_fill(given, seq_len, 32))
    seconds = time.process_time() - started
    pieces = np.bincount([p.document for row in made for p in row], minlength=count)
    tokens = sum(p.length for row in made for p in row)
    assert tokens == sizes.sum() and pieces.min() == 1, "a token is missing or doubled"
    borders, ends = np.cumsum(sizes) - sizes, np.cumsum(sizes) - 1
    return {
        "seconds": seconds,
        "sequences": len(made),
        "fill": tokens / (len(made) * seq_len),
        "longer": int((sizes > seq_len).sum()),
        "cut": int((pieces > 1).sum()),
        "cut_short": int(((pieces > 1) & (sizes <= seq_len)).sum()),
        "end_to_end_cut_short": int(((borders // seq_len != ends // seq_len) & (sizes <= seq_len)).sum()),
    }


# -- in the parent -----------------------------------------------------------------------------------------------------


def pack_1m(quick: bool) -> list[dict[str, Any]]:
    """Report only: no bar."""
    count = DOCUMENTS // 50 if quick else DOCUMENTS
    return [r for seq_len in (131_072, 32_768) for r in _at(count, seq_len)]


def _at(count: int, seq_len: int) -> list[dict[str, Any]]:
    common.say(f"pack_1m {count} documents at {seq_len}")
    made = common.alone(lambda: common.child("packing:pack", count=count, seq_len=seq_len))
    facts = {key: made[key] for key in ("sequences", "longer", "cut")}
    short = made["cut_short"]
    return [
        common.result(f"pack_1m_{seq_len}_seconds", made["seconds"], "CPU s"),
        common.result(f"pack_1m_{seq_len}_fill", made["fill"], "share", **facts),
        common.result(
            f"pack_1m_{seq_len}_short_documents_cut",
            short,
            f"documents of at most {seq_len} tokens",
            peer=PEER,
            peer_value=made["end_to_end_cut_short"],
        ),
    ]

"""Plans of one and ten million synthetic documents: our packers beside TRL's and axolotl's."""

import tempfile
import time
from pathlib import Path
from typing import Any

import common
import numpy as np

DOCUMENTS, MOST, LEAST = 1_000_000, 500_000, 32
TRL_SHARE = 10  # TRL runs out of memory at a million documents: it packs a tenth of them
TRL = "TRL's _pack_bfd, split, over a tenth of the documents"
GROUP = 100_000  # documents that axolotl packs together
PER_BIN = 200  # documents that axolotl puts into a bin at most
ARMS = ("window_fill", "best_fit", "concat", "trl", "first_fit")


# -- in the child ----------------------------------------------------------------------------------


def lengths(count: int, rng: np.random.Generator | None = None) -> np.ndarray:
    """Lognormal lengths: median 1,000 tokens, sigma 1.3; 1% of median 30,000, sigma 1.1."""
    rng = rng or np.random.default_rng(0)
    short = rng.lognormal(np.log(1000), 1.3, count)
    long = rng.lognormal(np.log(30_000), 1.1, count)
    mixed = np.where(rng.random(count) < 0.01, long, short)
    return np.clip(mixed, 1, MOST).astype(np.int64)


def ours(count: int, seq_len: int, packer: str) -> dict[str, float]:
    """CPU seconds of a plan (mix, pack, describe, write) and its statistics; checks every token."""
    from ropewalk.data import planning
    from ropewalk.data.mixing.rounds import Selection
    from ropewalk.data.packing import packed as packed_module
    from ropewalk.data.packing import plan

    sizes = lengths(count)
    keys = np.random.default_rng(1).integers(0, 1 << 63, count, dtype=np.uint64)
    share = Selection(np.arange(count), sizes, np.zeros(count, np.int64), keys)
    with tempfile.TemporaryDirectory() as folder:
        peak, started = common.Peak(), time.process_time()
        blocks = planning.pack_selections(
            {"a": [share]},
            {"a": 0},
            seq_len,
            LEAST,
            0,
            Path(folder),
            packer=packer,
            max_piece={"a": seq_len},
        )
        packed = packed_module.join(list(blocks))
        built = time.process_time() - started
        plan.describe(plan.write(Path(folder), [packed]), seq_len)
        cost = {"seconds": time.process_time() - started, "build_seconds": built, "mib": peak.mib()}
    cost["process_gib"] = (peak.start / common.MIB + cost["mib"]) / 1024
    return cost | _facts(sizes, _pieces(sizes, packed), packed.length, packed.offsets, seq_len)


def _pieces(sizes: np.ndarray, packed: Any) -> np.ndarray:
    """Pieces of each document (D,), after a check that the plan has every token once."""
    order = np.lexsort((packed.start, packed.document))
    document, start, length = packed.document[order], packed.start[order], packed.length[order]
    new = np.diff(document, prepend=-1) > 0
    assert (start == np.where(new, 0, np.roll(start + length, 1))).all(), (
        "a token is missing or doubled"
    )
    assert (np.bincount(document, length, len(sizes)) == sizes).all(), (
        "a token is missing or doubled"
    )
    return np.bincount(document, minlength=len(sizes))


def trl(count: int, seq_len: int) -> dict[str, float]:
    """TRL's best-fit decreasing over all documents at once, on lists of nulls."""
    import pyarrow as pa
    from trl.data_utils import _pack_bfd

    sizes = lengths(count)
    ends = np.cumsum(sizes)
    column = pa.ListArray.from_arrays(
        pa.array(np.append(0, ends), pa.int32()), pa.nulls(int(ends[-1]))
    )
    table = pa.table({"input_ids": column})
    peak, started = common.Peak(), time.process_time()
    packed = _pack_bfd(table, seq_len, "split")
    cost = {"seconds": time.process_time() - started, "mib": peak.mib()}
    bins = packed["seq_lengths"].combine_chunks()
    pieces = -(-sizes // seq_len)  # it cuts at multiples of seq_len, and nothing else
    assert len(bins.values) == pieces.sum()
    return cost | _facts(sizes, pieces, bins.values.to_numpy(), bins.offsets.to_numpy(), seq_len)


def first_fit(count: int, seq_len: int) -> dict[str, float]:
    """As axolotl's multipack sampler (`pack_group`), which drops long samples by default.

    Rewritten in numpy: its seconds do not count, for axolotl compiles its loop.
    """
    sizes = lengths(count)
    peak, started = common.Peak(), time.process_time()
    fitting = np.flatnonzero(sizes <= seq_len)
    bins, used = np.empty(len(fitting), np.int64), 0
    for start in range(0, len(fitting), GROUP):
        group = _first_fit(sizes[fitting[start : start + GROUP]], seq_len)
        bins[start : start + GROUP] = used + group
        used += int(group.max()) + 1
    cost = {"seconds": time.process_time() - started, "mib": peak.mib()}
    length = sizes[fitting][np.argsort(bins, kind="stable")]
    offsets = np.append(0, np.cumsum(np.bincount(bins)))
    return cost | _facts(sizes, (sizes <= seq_len).astype(int), length, offsets, seq_len)


def _first_fit(sizes: np.ndarray, room: int) -> np.ndarray:
    """Bin of each document: the oldest with room and fewer than PER_BIN documents, or a new one."""
    left, count = np.full(len(sizes), room), np.zeros(len(sizes), np.int64)
    bins, used = np.empty(len(sizes), np.int64), 0
    for item, size in enumerate(sizes.tolist()):
        index = int(np.argmax(left[: used + 1] >= size))
        bins[item], used = index, max(used, index + 1)
        count[index] += 1
        left[index] = left[index] - size if count[index] < PER_BIN else 0
    return bins


def _facts(
    sizes: np.ndarray, pieces: np.ndarray, length: np.ndarray, offsets: np.ndarray, seq_len: int
) -> dict[str, float]:
    """Statistics of a plan with `pieces` of each document and `length` of each piece."""
    work = np.add.reduceat(length.astype(float) ** 2, offsets[:-1])
    split = (pieces > 1).sum()
    return {
        "fill": float(length.sum() / ((len(offsets) - 1) * seq_len)),
        "tokens_lost": float(1 - length.sum() / sizes.sum()),
        "documents_lost": float((pieces == 0).mean()),
        "documents_split": float(split / len(sizes)),
        "short_documents_split": float(((pieces > 1) & (sizes <= seq_len)).sum() / len(sizes)),
        "most_documents": int(np.diff(offsets).max()),
        "order_correlation": float(np.corrcoef(np.arange(len(work)), work)[0, 1]),
    }


# -- in the parent ---------------------------------------------------------------------------------


def pack_1m(quick: bool) -> list[dict[str, Any]]:
    """A million documents at 131,072 and at 32,768 by every packer."""
    count = DOCUMENTS // 50 if quick else DOCUMENTS
    return [r for seq_len in (131_072, 32_768) for r in _at(count, seq_len)]


def _at(count: int, seq_len: int) -> list[dict[str, Any]]:
    arms = {name: _measure(name, count, seq_len) for name in ARMS}
    common.say(_table(arms, count, seq_len))
    return _costs(arms, seq_len) + _promises(arms, seq_len)


def _measure(name: str, count: int, seq_len: int) -> dict[str, float]:
    common.say(f"  {name}, {count} documents at {seq_len}")
    if name == "trl":
        return common.alone(
            lambda: common.child("packing:trl", count=count // TRL_SHARE, seq_len=seq_len)
        )
    if name == "first_fit":
        return common.alone(lambda: common.child("packing:first_fit", count=count, seq_len=seq_len))
    return common.alone(
        lambda: common.child("packing:ours", count=count, seq_len=seq_len, packer=name)
    )


def _costs(arms: dict[str, dict[str, float]], seq_len: int) -> list[dict[str, Any]]:
    """CPU seconds and memory. TRL's seconds are scaled to all documents, its memory is not."""
    prefix, trl = f"pack_1m_{seq_len}", arms["trl"]
    scaled = {"peer": f"{TRL}, times {TRL_SHARE}", "peer_value": trl["seconds"] * TRL_SHARE}
    rows = []
    for name in ("window_fill", "best_fit"):
        seconds, mib = arms[name]["seconds"], arms[name]["mib"]
        built = {"build_seconds": arms[name]["build_seconds"]}
        rows += [
            common.result(
                f"{prefix}_{name}_seconds",
                seconds,
                "CPU s",
                bar=f"value <= {1.5 if name == 'window_fill' else 6}",
                **built,
            ),
            common.result(
                f"{prefix}_{name}_seconds_trl", seconds, "CPU s", **scaled, bar="ratio <= 0.1"
            ),
            common.result(
                f"{prefix}_{name}_memory",
                mib,
                "MiB",
                peer=TRL,
                peer_value=trl["mib"],
                bar="ratio <= 0.1",
            ),
        ]
    return rows


def _promises(arms: dict[str, dict[str, float]], seq_len: int) -> list[dict[str, Any]]:
    """Fill, tokens lost and documents split. The first row also has the whole table."""
    prefix = f"pack_1m_{seq_len}"
    bars = {"fill": ">= 0.9995", "tokens_lost": "<= 0", "short_documents_split": "<= 0.0001"}
    peers = {"fill": "trl", "tokens_lost": "first_fit", "short_documents_split": "concat"}
    peer_names = {
        "trl": TRL,
        "first_fit": "first fit as axolotl has it",
        "concat": "documents end to end",
    }
    rows = [
        common.result(
            f"{prefix}_{name}_{key}",
            arms[name][key],
            "share",
            peer=peer_names[peers[key]],
            peer_value=arms[peers[key]][key],
            bar=f"value {'<= 0' if name == 'best_fit' and key == 'short_documents_split' else bar}",
        )
        for name in ("window_fill", "best_fit")
        for key, bar in bars.items()
    ]
    rows[0]["all"] = arms
    return rows


COLUMNS = (
    ("CPU s", "seconds", ".2f"),
    ("MiB", "mib", ".0f"),
    ("full", "fill", ".4f"),
    ("tokens lost", "tokens_lost", ".2%"),
    ("docs lost", "documents_lost", ".2%"),
    ("docs split", "documents_split", ".3%"),
    ("short split", "short_documents_split", ".4%"),
    ("docs/seq", "most_documents", ""),
    ("corr", "order_correlation", ".2f"),
)


def _table(arms: dict[str, dict[str, float]], count: int, seq_len: int) -> str:
    lines = [f"{seq_len:<12,}" + "".join(f" {title:>12}" for title, _, _ in COLUMNS)]
    for name, values in arms.items():
        cells = [f" {format(values[key], form):>12}" for _, key, form in COLUMNS]
        lines.append(f"{name:<12}" + "".join(cells))
    return "\n".join([*lines, f"trl packed {count // TRL_SHARE:,} documents, the others {count:,}"])


def pack_10m(quick: bool) -> list[dict[str, Any]]:
    """Ten million documents at 32,768: seconds beside a million's, and memory of the process."""
    count, seq_len = DOCUMENTS // (50 if quick else 1), 32_768
    million, ten = (_measure("window_fill", n, seq_len) for n in (count, 10 * count))
    details = {
        key: ten[key]
        for key in ("build_seconds", "fill", "tokens_lost", "short_documents_split", "mib")
    }
    peer = {"peer": "a tenth of the documents", "peer_value": million["seconds"]}
    return [
        common.result(
            "pack_10m_seconds", ten["seconds"], "CPU s", **peer, bar="ratio <= 12", **details
        ),
        common.result("pack_10m_process", ten["process_gib"], "GiB", bar="value <= 2"),
    ]

"""Plans of a million and of ten million synthetic documents, beside TRL's packing, first fit as axolotl has it, and concat."""

import tempfile
import time
from pathlib import Path
from typing import Any

import common
import numpy as np

DOCUMENTS, MOST, LEAST = 1_000_000, 500_000, 32
TRL_SHARE = 10  # TRL runs out of memory at a million documents: it packs a tenth of them
TRL = "TRL's _pack_bfd, split, over a tenth of the documents"
GROUP, PER_BIN = (
    100_000,
    200,
)  # axolotl's group size, and how many documents it puts into a bin at most
ARMS = ("window_fill", "best_fit", "concat", "trl", "first_fit")


# -- in the child ------------------------------------------------------------------------------------------------------


def lengths(count: int) -> np.ndarray:
    """Lognormal, median 1,000 tokens, sigma 1.3; one in a hundred of median 30,000, sigma 1.1; at most 500,000."""
    rng = np.random.default_rng(0)
    short = rng.lognormal(np.log(1000), 1.3, count)
    long = rng.lognormal(np.log(30_000), 1.1, count)
    mixed = np.where(rng.random(count) < 0.01, long, short)
    return np.clip(mixed, 1, MOST).astype(np.int64)


def ours(count: int, seq_len: int, packer: str) -> dict[str, float]:
    """CPU seconds of the whole plan (mix, pack, describe, write), and what it holds. Every token is looked for."""
    from ropewalk.data import planning
    from ropewalk.data.mixing.shares import Selection
    from ropewalk.data.packing import plan

    sizes = lengths(count)
    keys = np.random.default_rng(1).integers(0, 1 << 63, count, dtype=np.uint64)
    share = Selection(np.arange(count), sizes, np.zeros(count, np.int64), keys, 1.0)
    with tempfile.TemporaryDirectory() as folder:
        peak, started = common.Peak(), time.process_time()
        made = planning.pack_selections(
            {"a": share}, {"a": 0}, seq_len, LEAST, 0, packer=packer, max_piece={"a": seq_len}
        )
        built = time.process_time() - started
        plan.describe(made, seq_len)
        plan.write(Path(folder), made)
        cost = {"seconds": time.process_time() - started, "build_seconds": built, "mib": peak.mib()}
    cost["process_gib"] = (peak.before / common.MIB + cost["mib"]) / 1024
    return cost | _facts(sizes, _pieces(sizes, made), made.length, made.offsets, seq_len)


def _pieces(sizes: np.ndarray, made: Any) -> np.ndarray:
    """How many pieces each document has in a plan that must hold its every token once."""
    order = np.lexsort((made.start, made.document))
    document, start, length = made.document[order], made.start[order], made.length[order]
    new = np.diff(document, prepend=-1) > 0
    assert (start == np.where(new, 0, np.roll(start + length, 1))).all(), (
        "a token is missing or doubled"
    )
    assert (np.bincount(document, length, len(sizes)) == sizes).all(), (
        "a token is missing or doubled"
    )
    return np.bincount(document, minlength=len(sizes))


def trl(count: int, seq_len: int) -> dict[str, float]:
    """TRL's best-fit decreasing over the whole set at once, on documents without tokens: lists of nulls."""
    import pyarrow as pa
    from trl.data_utils import _pack_bfd

    sizes = lengths(count)
    ends = np.cumsum(sizes)
    column = pa.ListArray.from_arrays(
        pa.array(np.append(0, ends), pa.int32()), pa.nulls(int(ends[-1]))
    )
    table = pa.table({"input_ids": column})
    peak, started = common.Peak(), time.process_time()
    made = _pack_bfd(table, seq_len, "split")
    cost = {"seconds": time.process_time() - started, "mib": peak.mib()}
    bins = made["seq_lengths"].combine_chunks()
    pieces = -(-sizes // seq_len)  # it cuts at multiples of seq_len, and nothing else
    assert len(bins.values) == pieces.sum()
    return cost | _facts(sizes, pieces, bins.values.to_numpy(), bins.offsets.to_numpy(), seq_len)


def first_fit(count: int, seq_len: int) -> dict[str, float]:
    """As axolotl's multipack sampler (`pack_group`) with its default for long samples: they are dropped.

    Written anew in numpy, so its seconds are not those of axolotl, whose loop is compiled.
    """
    sizes = lengths(count)
    peak, started = common.Peak(), time.process_time()
    kept = np.flatnonzero(sizes <= seq_len)
    bins, used = np.empty(len(kept), np.int64), 0
    for at in range(0, len(kept), GROUP):
        found = _first_fit(sizes[kept[at : at + GROUP]], seq_len)
        bins[at : at + GROUP] = used + found
        used += int(found.max()) + 1
    cost = {"seconds": time.process_time() - started, "mib": peak.mib()}
    length = sizes[kept][np.argsort(bins, kind="stable")]
    offsets = np.append(0, np.cumsum(np.bincount(bins)))
    return cost | _facts(sizes, (sizes <= seq_len).astype(int), length, offsets, seq_len)


def _first_fit(sizes: np.ndarray, room: int) -> np.ndarray:
    """The first bin, in order of opening, that has the room and fewer than PER_BIN documents; else a new one."""
    left, count = np.full(len(sizes), room), np.zeros(len(sizes), np.int64)
    found, used = np.empty(len(sizes), np.int64), 0
    for item, size in enumerate(sizes.tolist()):
        at = int(np.argmax(left[: used + 1] >= size))
        found[item], used = at, max(used, at + 1)
        count[at] += 1
        left[at] = left[at] - size if count[at] < PER_BIN else 0
    return found


def _facts(
    sizes: np.ndarray, pieces: np.ndarray, length: np.ndarray, offsets: np.ndarray, seq_len: int
) -> dict[str, float]:
    """A row of the table from documents (`sizes`, `pieces` of each) and sequences (`length` of each piece, `offsets`)."""
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


# -- in the parent -----------------------------------------------------------------------------------------------------


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
    """CPU seconds and memory. TRL's seconds are scaled linearly to as many documents, its memory is left as it is."""
    at, trl = f"pack_1m_{seq_len}", arms["trl"]
    scaled = {"peer": f"{TRL}, times {TRL_SHARE}", "peer_value": trl["seconds"] * TRL_SHARE}
    found = []
    for name in ("window_fill", "best_fit"):
        seconds, mib = arms[name]["seconds"], arms[name]["mib"]
        built = {"build_seconds": arms[name]["build_seconds"]}
        found += [
            common.result(f"{at}_{name}_seconds", seconds, "CPU s", bar="value <= 6", **built),
            common.result(
                f"{at}_{name}_seconds_trl", seconds, "CPU s", **scaled, bar="ratio <= 0.1"
            ),
            common.result(
                f"{at}_{name}_memory",
                mib,
                "MiB",
                peer=TRL,
                peer_value=trl["mib"],
                bar="ratio <= 0.1",
            ),
        ]
    return found


def _promises(arms: dict[str, dict[str, float]], seq_len: int) -> list[dict[str, Any]]:
    """What a plan holds: how full it is, what it lost, what it cut. The whole table stands in the first row."""
    at = f"pack_1m_{seq_len}"
    bars = {"fill": ">= 0.9995", "tokens_lost": "<= 0", "short_documents_split": "<= 0.0001"}
    peers = {"fill": "trl", "tokens_lost": "first_fit", "short_documents_split": "concat"}
    said = {
        "trl": TRL,
        "first_fit": "first fit as axolotl has it",
        "concat": "documents end to end",
    }
    rows = [
        common.result(
            f"{at}_{name}_{key}",
            arms[name][key],
            "share",
            peer=said[peers[key]],
            peer_value=arms[peers[key]][key],
            bar=f"value {'<= 0' if name == 'best_fit' and key == 'short_documents_split' else bar}",
        )
        for name in ("window_fill", "best_fit")
        for key, bar in bars.items()
    ]
    rows[0]["all"] = arms
    return rows


def _table(arms: dict[str, dict[str, float]], count: int, seq_len: int) -> str:
    lines = [
        f"{seq_len:<12,} {'CPU s':>7} {'MiB':>7} {'full':>7} {'tokens lost':>12} {'docs lost':>10} {'docs split':>11}"
    ]
    lines[0] += f" {'short split':>12} {'docs/seq':>9} {'corr':>6}"
    for name, a in arms.items():
        lines.append(
            f"{name:<12} {a['seconds']:>7.2f} {a['mib']:>7.0f} {a['fill']:>7.4f} {a['tokens_lost']:>12.2%} "
            f"{a['documents_lost']:>10.2%} {a['documents_split']:>11.3%} {a['short_documents_split']:>12.4%} "
            f"{a['most_documents']:>9} {a['order_correlation']:>6.2f}"
        )
    return "\n".join([*lines, f"trl packed {count // TRL_SHARE:,} documents, the others {count:,}"])


def pack_10m(quick: bool) -> list[dict[str, Any]]:
    """Ten times the documents at 32,768: ten times the seconds, and the whole process in 2 GiB."""
    count, seq_len = DOCUMENTS // (50 if quick else 1), 32_768
    arms = {"one": count, "ten": 10 * count}
    runs = {key: _measure("window_fill", documents, seq_len) for key, documents in arms.items()}
    one, ten = runs["one"], runs["ten"]
    facts = {
        key: ten[key]
        for key in ("build_seconds", "fill", "tokens_lost", "short_documents_split", "mib")
    }
    peer = {"peer": "a tenth of the documents", "peer_value": one["seconds"]}
    return [
        common.result(
            "pack_10m_seconds", ten["seconds"], "CPU s", **peer, bar="ratio <= 12", **facts
        ),
        common.result("pack_10m_process", ten["process_gib"], "GiB", bar="value <= 2"),
    ]

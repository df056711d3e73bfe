"""Plans of a hundred million documents: made, written, described, and the first batch of one."""

import json
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import common
import numpy as np
from packing import lengths

DOCUMENTS, SEQ_LEN, LEAST = 100_000_000, 32_768, 32
SOURCES = {"web": 0.6, "books": 0.4}  # their weights, and about their shares of the documents
TAKEN = 0.98  # of what the weights allow, so that the last document of each source is cut
SHARD = 1 << 28  # tokens
PART = 1 << 20  # documents that are generated at a time


# -- in the child ----------------------------------------------------------------------------------


def make_stores(folder: str, count: int) -> None:
    """A token store of each source, of generated lengths; its tokens are sparse files of zeros."""
    for number, (name, share) in enumerate(SOURCES.items()):
        _make_store(Path(folder) / "tokens" / name, int(count * share), number)


def _make_store(folder: Path, count: int, number: int) -> None:
    import pyarrow as pa

    from ropewalk.conf.artifacts import manifest
    from ropewalk.data.tokens.store import DOCUMENTS as TABLE

    folder.mkdir(parents=True)
    rng = np.random.default_rng(number)
    parts = range(0, count, PART)
    sizes = [lengths(min(PART, count - first), rng) for first in parts]
    tokens = np.concatenate(sizes)
    starts = np.cumsum(tokens) - tokens
    shard = (starts // SHARD).astype(np.uint32)
    first = np.unique(shard, return_index=True)[1]
    sums = np.diff(np.append(starts[first], starts[-1] + tokens[-1]))
    starts -= starts[first][shard]
    zeros, ids = np.zeros(count, np.uint64), np.arange(count + 1, dtype=np.int32)
    keys = rng.integers(0, 1 << 63, count, dtype=np.uint64)
    columns = {"key": keys, "shard": shard, "offset": starts, "tokens": tokens, "text_hash": zeros}
    arrays = {
        name: pa.Array.from_buffers(
            pa.from_numpy_dtype(values.dtype), count, [None, pa.py_buffer(values)]
        )
        for name, values in columns.items()
    }
    text = pa.py_buffer(b"x" * count)  # one letter each: nothing here reads an id
    arrays["id"] = pa.StringArray.from_buffers(count, pa.py_buffer(ids), text)
    table = pa.table(arrays)
    with (
        pa.OSFile(str(folder / TABLE), "wb") as sink,
        pa.ipc.new_file(sink, table.schema) as writer,
    ):
        writer.write_table(table)
    for index, size in enumerate(sums.tolist()):
        (folder / f"{index:05}").mkdir()
        with (folder / f"{index:05}" / "tokens.bin").open("wb") as file:
            file.truncate(2 * size)
    finished = manifest.Manifest.for_content("tokens", {"number": number, "count": count})
    finished.facts = {"kind": "jsonl", "dtype": "uint16", "documents": count}
    finished.facts |= {"tokens": int(tokens.sum()), "refused": {}}
    finished.facts["shards"] = [{"tokens": size} for size in sums.tolist()]
    manifest.write(folder, finished)


def make_plan(folder: str, count: int, seq_len: int) -> dict[str, Any]:
    """CPU seconds and memory of the plan (mixed, packed, written, described) and of its ledger."""
    from ropewalk.data import planning

    mixture = _mixture(Path(folder), seq_len)
    peak, started = common.Peak(), time.process_time()
    path = planning.make_plan(mixture, Path(folder))
    planned = time.process_time()
    ledger = planning.make_ledger(mixture, path)
    seconds = time.process_time() - started
    ledger = json.loads(json.dumps(ledger))
    return {
        "plan": path.name,
        "seconds": seconds,
        "plan_seconds": planned - started,
        "gib": (peak.start / common.MIB + peak.mib()) / 1024,
        **{key: ledger["plan"][key] for key in ("fill", "sequences", "pieces")},
        "blocks": ledger["plan"].get("blocks", 1),
        "share_of_web": ledger["sources"]["web"]["share_in_plan"],
    }


def _mixture(folder: Path, seq_len: int) -> Any:
    """The sources by their weights, nearly all of their documents once."""
    from ropewalk.conf.data import DataConfig
    from ropewalk.conf.sources import SourceConfig
    from ropewalk.data.mixing import offers, shares
    from ropewalk.data.mixture import Mixture
    from ropewalk.data.tokens import store
    from ropewalk.data.tokens.store import BoundaryTokens

    sources = {
        name: SourceConfig(path=name, kind="jsonl", weight=weight)
        for name, weight in SOURCES.items()
    }
    data = DataConfig(sources=sources, seq_len=seq_len, min_piece=LEAST)
    config: Any = SimpleNamespace(data=data, seed=0)  # all that a plan reads of a run's
    stores = {name: store.load(folder / "tokens" / name, 0.001) for name in SOURCES}
    usable = {
        name: offers.candidates(config, name, stores[name], BoundaryTokens()) for name in SOURCES
    }
    available = {name: usable[name].tokens for name in SOURCES}
    total = int(shares.first_to_run_out(SOURCES, available) * TAKEN)
    budgets = shares.token_budgets(SOURCES, available, total)
    return Mixture(config, stores, usable, budgets, BoundaryTokens())


def first_batch(folder: str, plan: str) -> dict[str, float]:
    """Seconds of the clock from opening a plan to the first micro-batch of a rank of eight."""
    from ropewalk.data.dataset import BatchLoader, DataArtifacts

    class Mesh:
        dp_rank, dp_size, sp_rank, sp_size = 3, 8, 0, 1

    root = Path(folder)
    stores = {name: root / "tokens" / name for name in SOURCES}
    peak, started = common.Peak(), time.perf_counter()
    sequences = DataArtifacts(root / "plans" / plan, stores, root, 0.001).sequences()
    loader = BatchLoader(sequences, Mesh(), 0, micro_batch_size=1, batch_ramp=[(0, 4)])
    row = next(loader.micro_batches([0]))
    seconds = time.perf_counter() - started
    assert len(row.input_ids) == sequences.seq_len
    return {"seconds": seconds, "mib": peak.mib()}


# -- in the parent ---------------------------------------------------------------------------------


def plan_100m(quick: bool) -> list[dict[str, Any]]:
    """A plan of a hundred million documents of two sources, a cut budget, 32,768 tokens."""
    count = DOCUMENTS // (500 if quick else 1)
    with tempfile.TemporaryDirectory() as folder:
        common.say(f"  stores of {count:,} documents")
        common.child("large_plans:make_stores", folder=folder, count=count)
        common.say(f"  plan of {count:,} documents at {SEQ_LEN}")
        plan = common.child("large_plans:make_plan", folder=folder, count=count, seq_len=SEQ_LEN)
        batch = common.child("large_plans:first_batch", folder=folder, plan=plan["plan"])
    details = {key: value for key, value in plan.items() if key not in ("seconds", "gib")}
    return [
        common.result("plan_100m_seconds", plan["seconds"], "CPU s", bar="value <= 200", **details),
        common.result("plan_100m_process", plan["gib"], "GiB", bar="value <= 4"),
        common.result("plan_100m_fill", plan["fill"], "share", bar="value >= 0.9995"),
        common.result(
            "plan_100m_first_batch", batch["seconds"], "s", bar="value <= 2", mib=batch["mib"]
        ),
    ]

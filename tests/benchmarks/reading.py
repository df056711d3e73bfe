"""CPU time to read a sequence, or an eighth of it, beside rows of Hugging Face datasets.

Ours returns ids, shifted labels, positions and borders; the peer only ids that were packed earlier.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common
import numpy as np

SEQ_LEN, SEQUENCES, PIECES, PARTS = 131_072, 48, 60, 8
ROUNDS = 9
LISTS, ARRAYS = "datasets, Python lists (ids alone)", "datasets, numpy format (ids alone)"


# -- in the child ----------------------------------------------------------------------------------


def read(seq_len: int, sequences: int) -> dict[str, float]:
    """CPU milliseconds of one sequence, median over rounds that take turns."""
    with tempfile.TemporaryDirectory() as folder:
        ours, lists = (
            _ours(Path(folder), seq_len, sequences),
            _datasets(Path(folder), seq_len, sequences),
        )
        arrays, width = lists.with_format("numpy"), seq_len // PARTS
        ways: dict[str, Callable[[int], Any]] = {
            "whole": lambda n: ours[n],
            "slice": lambda n: ours.read(n, 0, n % PARTS * width, (n % PARTS + 1) * width),
            "lists": lambda n: lists[n]["input_ids"],
            "arrays": lambda n: arrays[n]["input_ids"],
        }
        assert len(ours[0].input_ids) == len(lists[0]["input_ids"]) == seq_len
        rounds = [
            {name: _milliseconds(way, sequences) for name, way in ways.items()}
            for _ in range(ROUNDS)
        ]
    return {name: common.median([times[name] for times in rounds]) for name in ways}


def _milliseconds(way: Callable[[int], Any], sequences: int) -> float:
    started = time.process_time()
    for number in range(sequences):
        way(number)
    return (time.process_time() - started) / sequences * 1e3


def _ours(folder: Path, seq_len: int, sequences: int) -> Any:
    """Documents of lognormal lengths, PIECES a sequence."""
    from ropewalk.conf.artifacts.manifest import Manifest, publish
    from ropewalk.data.loading.packed import PackedSequences
    from ropewalk.data.packing import plan
    from ropewalk.data.packing.packed import Packed
    from ropewalk.data.tokens import merge

    rng = np.random.default_rng(0)
    lengths = [
        rng.multinomial(seq_len - PIECES, rng.dirichlet(rng.lognormal(0, 1, PIECES))) + 1
        for _ in range(sequences)
    ]
    done = []
    for name, metadata in (
        ("store", {}),
        ("plan", {"seq_len": seq_len, "document_mask": True, "positions": "restart"}),
    ):
        (folder / name).mkdir()
        if name == "store":
            documents = (rng.integers(0, 49_152, n) for row in lengths for n in row.tolist())
            metadata = merge.synthetic_store(folder / name, "made", documents, 49_152)
        else:
            flat = np.concatenate(lengths)
            offsets = np.arange(sequences + 1) * PIECES
            plan.write(
                folder / name, [Packed(np.arange(len(flat)), np.zeros_like(flat), flat, offsets)]
            )
        manifest = Manifest.for_content(name, {})
        manifest.facts = metadata
        publish(folder / name, folder / f"{name}.done", manifest)
        done.append(folder / f"{name}.done")
    return PackedSequences(done[1], done[:1])


def _datasets(folder: Path, seq_len: int, sequences: int) -> Any:
    from datasets import Dataset, load_from_disk

    rng = np.random.default_rng(1)
    rows = [rng.integers(0, 49_152, seq_len).astype(np.int32) for _ in range(sequences)]
    Dataset.from_dict({"input_ids": rows}).save_to_disk(str(folder / "datasets"))
    return load_from_disk(str(folder / "datasets"))


# -- in the parent ---------------------------------------------------------------------------------


def reading(quick: bool) -> list[dict[str, Any]]:
    """CPU milliseconds a sequence."""
    size = (
        {"seq_len": 4096, "sequences": 8} if quick else {"seq_len": SEQ_LEN, "sequences": SEQUENCES}
    )
    common.say(f"reading {size}")
    milliseconds = common.alone(lambda: common.child("reading:read", **size))
    name, unit = f"reading_{size['seq_len']}", "CPU ms"
    return [
        common.result(
            name,
            milliseconds["whole"],
            unit,
            peer=LISTS,
            peer_value=milliseconds["lists"],
            bar="value <= 0.5",
        ),
        common.result(
            f"{name}_beside_numpy",
            milliseconds["whole"],
            unit,
            peer=ARRAYS,
            peer_value=milliseconds["arrays"],
        ),
        common.result(f"{name}_slice_of_{PARTS}", milliseconds["slice"], unit, bar="value <= 0.1"),
    ]

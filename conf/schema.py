"""Every setting: its type, unit, default and rule. YAML chooses values; names and docs live here.

Fields marked `# ~` do not decide what a stage produces (speed, logging, places): changing one redoes nothing.
"""

from collections.abc import Iterator
from dataclasses import Field, dataclass, field, fields, is_dataclass
from typing import Any

from ropewalk.conf.data import DataConfig
from ropewalk.conf.eval import CalibrateConfig, EvalConfig, ExportConfig
from ropewalk.conf.fields import is_default, not_fingerprinted
from ropewalk.conf.model import ModelConfig
from ropewalk.conf.scaling import RopeConfig
from ropewalk.conf.train import TrainConfig


@dataclass(kw_only=True)
class Config:
    """One run."""

    schema: int = 1
    name: str
    """The run: its folder is `runs_dir/name`."""
    seed: int = 0
    runs_dir: str = not_fingerprinted("runs")
    cache_dir: str = not_fingerprinted("~/.cache/ropewalk")
    """Token stores, plans and converted models, shared by runs, named by their content."""
    phases: list[Any] = field(default_factory=list)
    """Trainings one after the other, each a set of settings on top of the run's, such as
    `{name: long, data.seq_len: 65536, rope.factor: 8, train.steps: 200}`; each starts from the model of the one before."""
    phase: int = 0
    """Of a phase's frozen settings: which one it is, from 1. Not to be set."""
    model: ModelConfig
    rope: RopeConfig
    data: DataConfig
    train: TrainConfig
    eval: EvalConfig
    calibrate: CalibrateConfig = field(default_factory=CalibrateConfig)
    export: ExportConfig = field(default_factory=ExportConfig)

    def problems(self) -> Iterator[str]:
        if not self.name or "/" in self.name or self.name.startswith("."):
            yield f"name is {self.name!r}; it must be a plain folder name; e.g. name=my-run"
        if self.schema != 1:
            yield f"schema is {self.schema}; this version reads 1; use the version that wrote the file"
        for section in (
            self.model,
            self.rope,
            self.data,
            self.train,
            self.eval,
            self.calibrate,
            self.export,
        ):
            yield from section.problems()
        yield from self.train.mixed_problems(self.rope.method, self.data.pose.target_length)
        yield from self.train.group_problems(self.data.seq_len)
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
        return (
            self.micro_batch_tokens
            if self.train.global_batch_tokens is None
            else self.train.global_batch_tokens
        )

    def batches(self) -> list[tuple[str, int, int]]:
        """The setting, first step (from 0) and tokens of each size of the global batch, in order."""
        ramp = [pair for pair in self.train.batch_ramp if len(pair) == 2]
        later = [
            (f"train.batch_ramp[{n}][1]", step - 1, tokens) for n, (step, tokens) in enumerate(ramp)
        ]
        return [("train.global_batch_tokens", 0, self.global_batch_tokens), *later]

    @property
    def tokens(self) -> int:
        """Of all steps."""
        sizes = self.batches()
        ends = [*(first for _, first, _ in sizes[1:]), self.train.steps]
        spans = [
            max(0, min(end, self.train.steps) - first)
            for (_, first, _), end in zip(sizes, ends, strict=True)
        ]
        return sum(span * tokens for span, (_, _, tokens) in zip(spans, sizes, strict=True))


def content(section: Any) -> Any:
    """A section as plain values: what a fingerprint is taken of. Without its neutral fields, and those added later that are at
    their default."""
    if is_dataclass(section) and not isinstance(section, type):
        return {
            f.name: content(getattr(section, f.name))
            for f in fields(section)
            if _decides(f, getattr(section, f.name))
        }
    if isinstance(section, dict):
        return {str(key): content(value) for key, value in section.items()}
    if isinstance(section, (list, tuple)):
        return [content(value) for value in section]
    return section


def _decides(of: "Field[Any]", value: Any) -> bool:
    return not of.metadata.get("neutral") and not (
        of.metadata.get("added") and is_default(of, value)
    )

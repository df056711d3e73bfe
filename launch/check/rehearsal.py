"""What the command puts into a folder for the ranks of a self-test, and how they read it.

config.yaml  the user's settings   rope.json  the plan   model/  the small model   data/  its
sequences   real-step/  two layers of the whole model   work.json  what the whole model decides
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ropewalk.conf.artifacts.manifest import read_json
from ropewalk.conf.artifacts.records import write_json
from ropewalk.conf.check import load, to_yaml
from ropewalk.conf.schema import Config
from ropewalk.launch.check import real_step, small_data, small_model
from ropewalk.launch.check.settings import global_sequences, small_settings
from ropewalk.launch.check.small_data import SmallData
from ropewalk.launch.check.small_training import SmallTraining
from ropewalk.launch.check.together import Ranks
from ropewalk.launch.pipeline.run import Run
from ropewalk.train import remote_code
from ropewalk.train.base import base_config
from ropewalk.train.cost.traffic import Collective, ParallelLayout, collectives, model_sizes
from ropewalk.train.launcher.command import world_size
from ropewalk.train.rope.plan import RopePlan
from ropewalk.train.weights.architecture import build_without_storage
from ropewalk.train.zero.config import accumulation_steps


@dataclass(frozen=True)
class Rehearsal:
    """As a rank reads it."""

    config: Config
    """The user's."""
    folder: Path
    plan: RopePlan
    collectives: list[Collective]
    """Of a step of the whole model."""
    trusted: bool
    real_step_left_out: str
    """Why there is no real step; empty where there is."""

    @classmethod
    def read(cls, folder: Path) -> "Rehearsal":
        work = read_json(folder / "work.json")
        return cls(
            load(folder / "config.yaml"),
            folder,
            RopePlan.read(folder / "rope.json"),
            [Collective(**values) for values in work["collectives"]],
            work["trusted"],
            work["real_step_left_out"],
        )

    def small(self, ranks: Ranks) -> SmallTraining:
        """The small training of these ranks."""
        config = small_settings(self.config, ranks.world_size)
        sequences = global_sequences(ranks.world_size, config.train.sp_size)
        data = SmallData.of(sequences, config.data.seq_len)
        return SmallTraining(config, self.folder, data, self.plan, self.trusted, ranks)


def prepare(run: Run, folder: Path) -> str:
    """Write everything into `folder`, which exists; returns why there is no real step.

    Raises: ConfigError, RopewalkError.
    """
    config, base, count = run.frozen, run.base, world_size(run.config)
    (folder / "config.yaml").write_text(to_yaml(config), encoding="utf-8")
    write_json(folder / "rope.json", run.rope_plan.json())
    trusted = base.trust_remote_code
    small = small_model.small_config(base_config(base), config.train.sp_size, trusted)
    small_model.write_small_model(small, config.seed, folder / "model", trusted)
    for line in remote_code.take_along(base.path, base.revision, folder / "model", trusted=trusted):
        print(f"check: {line}", flush=True)
    settings = small_settings(config, count)
    sequences = global_sequences(count, config.train.sp_size)
    data = SmallData.of(sequences, settings.data.seq_len)
    small_data.write(data, settings.data, folder / "data")
    left_out = real_step.prepare(config, base, count, folder)
    work = {
        "collectives": [asdict(x) for x in _collectives(run, count)],
        "trusted": trusted,
        "real_step_left_out": left_out,
    }
    write_json(folder / "work.json", work)
    return left_out


def _collectives(run: Run, count: int) -> list[Collective]:
    config, train = run.config, run.config.train
    model: Any = build_without_storage(base_config(run.base), run.base.trust_remote_code)
    layout = ParallelLayout(
        dp_size=count // train.sp_size,
        sp_size=train.sp_size,
        zero_stage=train.zero_stage,
        accumulation_steps=accumulation_steps(config, count // train.sp_size),
        tokens=config.micro_batch_tokens,
        element_bytes=2 if train.precision == "bf16" else 4,
        checkpointing=train.memory.activation_checkpointing,
    )
    return collectives(model_sizes(model), layout)

"""One step at the asked length, width and settings, with two layers: its peak and its seconds.

Prepared by the command, which knows the model's config; measured by the ranks. The weights are
drawn at random. A forecast of the same step, where there is one, stands beside it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import PreTrainedConfig

from ropewalk.conf.artifacts.manifest import CONTENT_FILE
from ropewalk.conf.artifacts.records import write_json
from ropewalk.conf.schema import Config
from ropewalk.launch.check import small_data
from ropewalk.launch.check.line import Line
from ropewalk.launch.check.settings import real_step_settings
from ropewalk.launch.check.small_data import SmallData
from ropewalk.launch.check.small_model import few_layers
from ropewalk.launch.check.small_training import line_of_step
from ropewalk.launch.check.together import Ranks
from ropewalk.train.assemble import RunInputs, assemble
from ropewalk.train.base import Base, base_config
from ropewalk.train.cost.flops import model_cost
from ropewalk.train.rope.plan import RopePlan
from ropewalk.train.weights.architecture import build_without_storage

NAME, FOLDER = "one real step", "real-step"
MOST_CPU_FLOPS = 4e11
"""Of a step on all ranks of a CPU machine, some ten seconds."""
MOST_OVER = 1.1
"""Measured peak over the forecast's."""
WAY_OUT = "lower train.micro_batch_size, raise train.sp_size or train.zero_stage, or offload more"


@dataclass(frozen=True)
class Forecast:
    """What `ropewalk plan` expects of the same step on one rank."""

    peak_bytes: int
    seconds: float


def prepare(config: Config, base: Base, world_size: int, folder: Path) -> str:
    """Write the two-layer config and its data; or return why the step is left out."""
    if base.trust_remote_code:
        return "a model with code of its own is not drawn at random"
    few, data = few_layers(base_config(base)), _data(config, world_size)
    if not torch.cuda.is_available():
        lengths = [n for row in data.lengths for n in row]
        model = build_without_storage(few, False)
        flops = model_cost(model).training_flops(lengths, sum(lengths))
        if flops > MOST_CPU_FLOPS:
            return f"{flops / 1e12:,.1f} TFLOPs of two layers are too many for a CPU"
    (folder / FOLDER).mkdir()
    few.save_pretrained(folder / FOLDER)
    small_data.write(data, config.data, folder / FOLDER / "data")
    return ""


def _data(config: Config, world_size: int) -> SmallData:
    """One micro-batch for each group."""
    sequences = config.train.micro_batch_size * world_size // config.train.sp_size
    return SmallData.of_long_documents(sequences, config.data.seq_len)


def real_step_lines(
    config: Config,
    plan: RopePlan,
    folder: Path,
    ranks: Ranks,
    left_out: str,
    forecast: Forecast | None = None,
) -> list[Line]:
    """Collective. The second of two steps, in which nothing is made for the first time."""
    if left_out:
        return [Line.skipped(NAME, left_out)]
    trainer = assemble(_inputs(config, plan, folder / FOLDER, ranks))
    before = psutil.Process().memory_info().rss
    lines = [line_of_step(trainer, step) for step in range(2)]
    peak = lines[1]["peak_memory_bytes"] if torch.cuda.is_available() else 0
    grown = psutil.Process().memory_info().rss - before
    measured = max(ranks.gather(peak or grown))
    trainer.engine.destroy()
    return [_line(config, lines[1], measured, forecast)]


def _inputs(config: Config, plan: RopePlan, folder: Path, ranks: Ranks) -> RunInputs:
    if ranks.rank == 0:
        write_json(folder / CONTENT_FILE, {"content": {"check": FOLDER}})
    ranks.barrier()
    drawn: PreTrainedConfig = base_config(Base(str(folder)))
    return RunInputs(
        config=real_step_settings(config, ranks.world_size),
        folder=folder,
        base=Base(None, drawn=drawn),
        plan=plan,
        data=small_data.artifacts(folder / "data"),
        cache=folder / "cache",
    )


def _line(config: Config, step: dict[str, Any], peak: int, forecast: Forecast | None) -> Line:
    """`peak`: bytes of the device; on a CPU what the process has grown by."""
    kind = "peak of the device" if torch.cuda.is_available() else "grown in host memory"
    told = (
        f"{step['step_time_s']:.2f} s for {step['tokens']:,} tokens at length "
        f"{config.data.seq_len:,} with two layers, {peak / 2**30:.2f} GiB {kind}, loss "
        f"{step['loss']:.3f}"
    )
    if forecast is None:
        return Line.judged(NAME, step["loss"] > 0, told, "a loss that is a number", WAY_OUT)
    bar = f"within {MOST_OVER - 1:.0%} of the plan's {forecast.peak_bytes / 2**30:.2f} GiB"
    told += f"; the plan: {forecast.seconds:.2f} s"
    return Line.judged(NAME, peak <= MOST_OVER * forecast.peak_bytes, told, bar, WAY_OUT)

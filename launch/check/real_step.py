"""One step at the asked length, width and settings, with two layers: its peak and its seconds.

Prepared by the command, which knows the model's config; measured by the ranks. The weights are
drawn at random.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig

from ropewalk.conf.artifacts.manifest import CONTENT_FILE, read_json
from ropewalk.conf.artifacts.records import write_json
from ropewalk.conf.schema import Config
from ropewalk.launch.check import small_data
from ropewalk.launch.check.line import Line
from ropewalk.launch.check.settings import real_step_settings
from ropewalk.launch.check.small_data import SmallData
from ropewalk.launch.check.small_model import few_layers
from ropewalk.launch.check.small_training import line_of_step
from ropewalk.launch.check.tensor_peak import tensor_bytes, tensor_peak
from ropewalk.launch.check.together import Ranks
from ropewalk.train.assemble import RunInputs, assemble
from ropewalk.train.base import Base, base_config
from ropewalk.train.cost.flops import model_cost
from ropewalk.train.rope.plan import RopePlan
from ropewalk.train.weights.architecture import build_without_storage

NAME, FOLDER = "one real step", "real-step"
MEASURED = "measured-step.json"
MOST_CPU_FLOPS = 4e11
"""Of a step on all ranks of a CPU machine, some ten seconds."""
WAY_OUT = "do not train; try train.precision=fp32, and report it with check.json"


@dataclass(frozen=True)
class MeasuredStep:
    """Of the rank with the highest peak, and of the slowest."""

    peak_bytes: int
    """Of tensors, above what was there before the model."""
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
    config: Config, plan: RopePlan, folder: Path, ranks: Ranks, left_out: str
) -> list[Line]:
    """Collective. The second of two steps, in which nothing is made for the first time.

    The command, which has its plan, finds what was measured in `folder`.
    """
    if left_out:
        return [Line.skipped(NAME, left_out)]
    before = tensor_bytes()
    trainer = assemble(_inputs(config, plan, folder / FOLDER, ranks))
    line_of_step(trainer, 0)
    with tensor_peak() as peak:
        step = line_of_step(trainer, 1)
    trainer.engine.destroy()
    highest = MeasuredStep(
        max(ranks.gather(peak.bytes - before)), max(ranks.gather(step["step_time_s"]))
    )
    if ranks.rank == 0:
        write_json(folder / MEASURED, asdict(highest))
    return [_line(config, step, highest)]


def measured(folder: Path) -> MeasuredStep:
    """As rank 0 wrote it."""
    return MeasuredStep(**read_json(folder / MEASURED))


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


def _line(config: Config, step: dict[str, Any], measured: MeasuredStep) -> Line:
    return Line.judged(
        NAME,
        step["loss"] > 0,
        f"{measured.seconds:.2f} s for {step['tokens']:,} tokens at length "
        f"{config.data.seq_len:,} with two layers, {measured.peak_bytes / 2**30:.2f} GiB of "
        f"tensors, loss {step['loss']:.3f}",
        "a loss that is a number",
        WAY_OUT,
    )

"""The real step beside its plan, and the correction that follows for other plans."""

from datetime import UTC, datetime
from pathlib import Path

from ropewalk.conf.schema import Config
from ropewalk.launch.check.line import PASS, Line
from ropewalk.launch.check.planned_step import Forecast
from ropewalk.launch.check.real_step import MeasuredStep
from ropewalk.launch.plan import correction
from ropewalk.launch.plan.correction import Correction

PEAK, SECONDS = "real step, peak beside the plan", "real step, seconds beside the plan"
MOST_OVER = 1.1
"""Measured peak over the plan's."""
WAY_OUT = (
    "plans of this machine are corrected by it; lower train.micro_batch_size, raise train.sp_size "
    "or train.zero_stage, or offload more, if they do not fit any more"
)


def lines(measured: MeasuredStep, forecast: Forecast) -> list[Line]:
    """The peak has a bar. The seconds have none: a plan's rates are those that others reached."""
    if forecast.problem:
        reason = f"there is no plan of it: {forecast.problem}"
        return [Line.skipped(name, reason) for name in (PEAK, SECONDS)]
    ratio = measured.peak_bytes / forecast.peak_bytes
    of_gpu = (
        "" if forecast.hardware else ", which is that of a GPU's kernels and chunks of the loss"
    )
    peak = Line.judged(
        PEAK,
        ratio <= MOST_OVER,
        f"{measured.peak_bytes / 2**30:.2f} GiB of tensors, {ratio:.2f} times the plan's "
        f"{forecast.peak_bytes / 2**30:.2f} GiB{of_gpu}",
        f"at most {MOST_OVER:g} times",
        WAY_OUT,
    )
    if not forecast.hardware:
        reason = "no hardware file has this device: the plan knows no rates of it"
        return [peak, Line.skipped(SECONDS, reason)]
    value = (
        f"{measured.seconds:.3f} s, {measured.seconds / forecast.seconds:.2f} times the plan's "
        f"{forecast.seconds:.3f} s; ropewalk plan --hardware {forecast.hardware} is corrected by "
        "both on this machine"
    )
    return [peak, Line(SECONDS, PASS, value)]


def correct(config: Config, measured: MeasuredStep, forecast: Forecast, gpus: int) -> Path | None:
    """Keep it where `ropewalk plan` looks; None where the plan does not know the hardware."""
    if forecast.problem or not forecast.hardware:
        return None
    train = config.train
    tokens = config.micro_batch_tokens // train.sp_size
    return correction.keep(
        Path(config.cache_dir).expanduser(),
        Correction(
            hardware=forecast.hardware,
            date=datetime.now(UTC).date().isoformat(),
            gpus=gpus,
            seq_len=config.data.seq_len,
            sp_size=train.sp_size,
            zero_stage=train.zero_stage,
            bytes_per_token=(measured.peak_bytes - forecast.peak_bytes) / tokens,
            seconds=measured.seconds / forecast.seconds,
        ),
    )

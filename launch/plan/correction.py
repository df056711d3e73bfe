"""What one real step measured beside its plan, and how that corrects other plans of the hardware.

`ropewalk check` trains two layers of the model for a step at the asked length, and keeps what it
measured in the cache folder. Two layers have what a plan may be wrong about, which are a layer's
own tensors and the loss's: their size goes with a rank's tokens and not with the number of layers.
So bytes are added, a token of a rank, and seconds are multiplied.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ropewalk.conf.artifacts.manifest import read_json
from ropewalk.conf.artifacts.records import UNREADABLE, write_json
from ropewalk.launch.plan.verdict import verdict, worst

FILE = Path("plan") / "corrections.json"
COMPONENT = "measured beyond the plan"
SCHEMA = 1


@dataclass(frozen=True)
class Correction:
    """Of one real step, on the machine that keeps it."""

    hardware: str
    """As `ropewalk plan --hardware` names it."""
    date: str
    """YYYY-MM-DD."""
    gpus: int
    seq_len: int
    sp_size: int
    zero_stage: int
    bytes_per_token: float
    """Of the peak of tensors: measured less planned, over a rank's tokens."""
    seconds: float
    """Measured over planned."""

    def __str__(self) -> str:
        return (
            f"ropewalk check of {self.date}, two layers at {self.seq_len:,} tokens on {self.gpus} "
            f"x {self.hardware}, sp {self.sp_size}, ZeRO {self.zero_stage}: "
            f"{self.bytes_per_token:+,.0f} bytes a token of a rank, {self.seconds:.2f} times the "
            "seconds"
        )


def keep(cache: Path, correction: Correction) -> Path:
    """Write it in place of a former one of the same hardware; returns the file."""
    path = cache / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = {**_kept(cache), correction.hardware: asdict(correction)}
    write_json(path, {"schema": SCHEMA, "corrections": kept})
    return path


def kept_for(cache: Path, hardware: str) -> Correction | None:
    """The last one of this hardware, None without one that can be read."""
    try:
        return Correction(**_kept(cache)[hardware])
    except (KeyError, TypeError):
        return None


def _kept(cache: Path) -> dict[str, Any]:
    try:
        content = read_json(cache / FILE)
        return dict(content["corrections"]) if content["schema"] == SCHEMA else {}
    except (*UNREADABLE, KeyError, TypeError):
        return {}


def applied(plan: Mapping[str, Any], correction: Correction, tokens: int) -> dict[str, Any]:
    """The plan of one phase with the correction; `tokens`: of a rank's micro-batch."""
    return {**plan, **_memory(plan, correction, tokens), **_time(plan, correction.seconds)} | {
        "correction": str(correction)
    }


def _memory(plan: Mapping[str, Any], correction: Correction, tokens: int) -> dict[str, Any]:
    extra = round(correction.bytes_per_token * tokens)
    peak = {name: size + extra for name, size in plan["peak_bytes"].items()}
    gpu = verdict(peak["allocated"], peak["expandable"], plan["usable_bytes"])
    verdicts = {**plan["verdicts"], "gpu": gpu}
    return {
        "peak_bytes": peak,
        "components": {**plan["components"], COMPONENT: extra},
        "verdicts": verdicts,
        "verdict": worst(list(verdicts.values())),
    }


def _time(plan: Mapping[str, Any], factor: float) -> dict[str, Any]:
    """The least time stays, as long as the corrected time is above it."""
    step = plan["step_s"]
    factors = {name: factor for name in step} | {
        "low": min(1.0, factor * step["likely"] / step["low"])
    }
    scaled = {
        key: {name: value * factors[name] for name, value in plan[key].items()}
        for key in ("step_s", "total_s", "gpu_hours")
    }
    rates = {key: plan[key] / factor for key in ("tokens_per_s", "mfu")}
    return {**scaled, **rates}

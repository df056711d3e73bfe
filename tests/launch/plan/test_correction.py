"""A real step corrects the plans of its hardware: in bytes a token and in a factor of the time."""

from pathlib import Path
from typing import Any

import pytest

from ropewalk.launch.plan import correction
from ropewalk.launch.plan.correction import Correction

GIB = 2**30
MEASURED = Correction("rtx4090", "2026-11-30", 2, 32768, 1, 2, GIB / 32768, 1.5)
PLAN: dict[str, Any] = {
    "verdict": "fits",
    "verdicts": {"gpu": "fits", "host": "fits"},
    "usable_bytes": 22 * GIB,
    "peak_bytes": {"allocated": 16 * GIB, "native": 20 * GIB, "expandable": 18 * GIB},
    "components": {"parameters": 16 * GIB},
    "step_s": {"low": 1.0, "likely": 2.0, "high": 2.5},
    "total_s": {"low": 10.0, "likely": 20.0, "high": 25.0},
    "gpu_hours": {"low": 0.1, "likely": 0.2, "high": 0.25},
    "tokens_per_s": 300.0,
    "mfu": 0.3,
}


def test_bytes_go_with_the_tokens_of_a_rank_and_seconds_by_a_factor() -> None:
    changed = correction.applied(PLAN, MEASURED, tokens=65536)
    assert changed["peak_bytes"] == {
        "allocated": 18 * GIB,
        "native": 22 * GIB,
        "expandable": 20 * GIB,
    }
    assert sum(changed["components"].values()) == changed["peak_bytes"]["allocated"]
    assert changed["step_s"] == {"low": 1.0, "likely": 3.0, "high": 3.75}
    assert changed["total_s"]["high"] == 37.5 and changed["gpu_hours"]["low"] == 0.1
    assert (changed["tokens_per_s"], changed["mfu"]) == (200.0, pytest.approx(0.2))
    assert changed["verdict"] == "fits" and PLAN["verdict"] == "fits"


@pytest.mark.parametrize(
    ("gib", "verdict"), [(2.0, "fits"), (2.5, "too_close"), (7.0, "does_not_fit")]
)
def test_the_verdict_follows(gib: float, verdict: str) -> None:
    """20 GiB and a tenth more are 22; the tensors alone are 16."""
    changed = correction.applied(PLAN, MEASURED, tokens=int(gib * 32768))
    assert changed["verdict"] == changed["verdicts"]["gpu"] == verdict


def test_a_faster_machine_lowers_the_least_time_too() -> None:
    fast = Correction(**{**vars(MEASURED), "seconds": 0.25})
    step = correction.applied(PLAN, fast, tokens=0)["step_s"]
    assert step == {"low": 0.5, "likely": 0.5, "high": 0.625}


def test_the_last_one_of_each_hardware_is_kept(tmp_path: Path) -> None:
    assert correction.kept_for(tmp_path, "rtx4090") is None
    other = Correction(**{**vars(MEASURED), "hardware": "h100"})
    later = Correction(**{**vars(MEASURED), "date": "2026-12-01"})
    for one in (MEASURED, other, later):
        path = correction.keep(tmp_path, one)
    assert correction.kept_for(tmp_path, "rtx4090") == later
    assert correction.kept_for(tmp_path, "h100") == other
    for damaged in ("{", "[]", '{"schema": 1, "corrections": {"h100": {"x": 1}}}'):
        path.write_text(damaged)
        assert correction.kept_for(tmp_path, "h100") is None

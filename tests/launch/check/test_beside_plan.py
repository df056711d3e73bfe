"""The real step beside its plan: the peak of tensors, the lines, the correction that is kept."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ropewalk.launch.check import beside_plan, rehearsal
from ropewalk.launch.check.beside_plan import PEAK, SECONDS
from ropewalk.launch.check.line import FAIL, PASS, SKIP
from ropewalk.launch.check.planned_step import Child, Forecast
from ropewalk.launch.check.real_step import MeasuredStep
from ropewalk.launch.check.tensor_peak import tensor_bytes, tensor_peak
from ropewalk.launch.cli import main
from ropewalk.launch.config.compose import compose
from ropewalk.launch.pipeline.run import Run
from ropewalk.launch.plan import correction

GIB, MIB = 2**30, 2**20
SETTINGS = ["recipe=demo", "train.sp_size=2", "train.global_batch_tokens=8192"]
SETTINGS += ["train.launcher.ranks_per_node=4", "train.precision=bf16"]
"""Two sequences of 2,048 tokens at once, which two ranks share."""
PLANNED = Forecast(10 * GIB, 2.0, "h100")


def test_the_peak_of_tensors_on_a_cpu() -> None:
    """Two of three matrices of 4 MiB live at once, beside one that was there before."""
    before = tensor_bytes()
    kept = torch.zeros(MIB)
    with tensor_peak() as peak:
        first = torch.ones(MIB)
        second = first + 1
        del first
        third = second * 2
        del second, third
    assert tensor_bytes() - before == 4 * MIB == kept.nbytes
    assert peak.bytes - before == pytest.approx(12 * MIB, abs=4096)


def test_gradients_and_what_autograd_keeps_count() -> None:
    weight = torch.zeros(MIB, requires_grad=True)
    weight.grad = torch.zeros(MIB)
    before = tensor_bytes()
    with tensor_peak() as peak:
        (weight.exp() * weight).sum().backward()
    assert tensor_bytes() == before
    # both factors are kept, and of their gradients at least one is there with the product
    assert peak.bytes - before >= 8 * MIB


@pytest.mark.parametrize(("gib", "status"), [(9.0, PASS), (10.9, PASS), (11.1, FAIL)])
def test_the_peak_has_a_bar_and_the_seconds_have_none(gib: float, status: str) -> None:
    peak, seconds = beside_plan.lines(MeasuredStep(int(gib * GIB), 5.0), PLANNED)
    assert (peak.name, peak.status, bool(peak.way_out)) == (PEAK, status, status == FAIL)
    assert f"{gib / 10:.2f} times the plan's 10.00 GiB" in peak.value
    assert (seconds.name, seconds.status) == (SECONDS, PASS)
    assert seconds.value.startswith("5.000 s, 2.50 times the plan's 2.000 s; ropewalk plan --hard")


def test_what_is_not_known_is_skipped_with_its_reason() -> None:
    measured = MeasuredStep(GIB, 1.0)
    _, seconds = beside_plan.lines(measured, Forecast(GIB))
    assert seconds.status == SKIP and "no hardware file has this device" in seconds.value
    both = beside_plan.lines(measured, Forecast(problem="the model could not be traced"))
    assert [x.status for x in both] == [SKIP, SKIP]
    assert both[0].value == "there is no plan of it: the model could not be traced"


def test_the_correction_is_kept_for_the_hardware(tmp_path: Path) -> None:
    config = compose([*SETTINGS, f"cache_dir={tmp_path}"], "check")
    measured = MeasuredStep(10 * GIB + 2048 * 100, 3.0)
    for unknown in (Forecast(GIB), Forecast(problem="x")):
        assert beside_plan.correct(config, measured, unknown, 4) is None
    assert not list(tmp_path.iterdir())
    beside_plan.correct(config, measured, PLANNED, 4)
    kept = correction.kept_for(tmp_path, "h100")
    assert kept is not None and replace(kept, date="") == correction.Correction(
        "h100", "", 4, 2048, 2, 1, 100.0, 1.5
    )


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("check") / "folder"
    folder.mkdir()
    assert not rehearsal.prepare(Run(compose(SETTINGS, "check")), folder)
    return folder


def test_the_forecast_is_that_of_ropewalk_plan(
    prepared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """For the config of two layers and a batch of one micro-batch a group."""
    with Child(prepared / "real-step", 4, "NVIDIA H100 80GB HBM3") as child:
        forecast = child.forecast()
    path = f"model.path={prepared / 'real-step'}"
    words = [*SETTINGS, path, "--hardware", "h100", "--gpus", "4", "--json", "--no-search"]
    main(["plan", *words])
    plan = json.loads(capsys.readouterr().out)
    assert forecast == Forecast(plan["peak_bytes"]["allocated"], plan["step_s"]["likely"], "h100")


def test_a_device_without_a_file_has_a_peak_alone(prepared: Path) -> None:
    with Child(prepared / "real-step", 4, "") as child:
        forecast = child.forecast()
    assert forecast.peak_bytes > 0 and not forecast.seconds and not forecast.problem


def test_why_there_is_no_forecast(tmp_path: Path, prepared: Path) -> None:
    """A refusal as it is, of a crash the last line."""
    with Child(tmp_path / "real-step", 4, "") as child:
        assert "config.yaml is not readable" in child.forecast().problem
    shutil.copytree(prepared, tmp_path / "copy")
    (tmp_path / "copy" / "real-step" / "config.json").write_text('{"model_type": "mamba"}')
    with Child(tmp_path / "copy" / "real-step", 4, "") as child:
        assert child.forecast().problem.startswith("the step could not be traced: ")

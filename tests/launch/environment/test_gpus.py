"""GPUs as nvidia-ml-py and nvidia-smi list them, by stand-ins that are held against the library;
and which attention kernels fit them, beside what the room of attention says."""

import inspect
import os
import stat
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ropewalk.launch.environment import answers, gpus, kernels, nvml
from ropewalk.launch.environment.gpus import Gpu
from ropewalk.train import kernel_packages
from ropewalk.train.kernel_packages import PACKAGES
from ropewalk.train.torch_build import TorchBuild

H100 = Gpu("NVIDIA H100 80GB HBM3", 85_520_809_984, (9, 0), "GPU-11111111-a")
A100 = Gpu("NVIDIA A100-SXM4-40GB", 42_949_672_960, (8, 0), "GPU-22222222-b")
CUDA = TorchBuild("2.14.1+cu130", "13.0", None, "5c48869")


class NVMLError(Exception):
    """As pynvml.NVMLError."""


class StandIn:
    """nvidia-ml-py on a machine with these GPUs."""

    NVMLError = NVMLError

    def __init__(self, *listed: Gpu, as_bytes: bool = False) -> None:
        self.listed, self.is_open, self.as_bytes = listed, False, as_bytes

    def nvmlInit(self) -> None:  # noqa: N802
        if not self.listed:
            raise NVMLError("Driver Not Loaded")
        self.is_open = True

    def _text(self, text: str) -> str | bytes:
        assert self.is_open
        return text.encode() if self.as_bytes else text

    def nvmlSystemGetDriverVersion(self) -> str | bytes:  # noqa: N802
        return self._text("580.95.05")

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.listed)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetName(self, handle: int) -> str | bytes:  # noqa: N802
        return self._text(self.listed[handle].name)

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(total=self.listed[handle].memory_bytes, free=0, used=0)

    def nvmlDeviceGetCudaComputeCapability(self, handle: int) -> tuple[int, int]:  # noqa: N802
        capability = self.listed[handle].capability
        assert capability is not None
        return capability

    def nvmlDeviceGetUUID(self, handle: int) -> str | bytes:  # noqa: N802
        return self._text(self.listed[handle].uuid)


def test_the_stand_in_and_our_calls_are_those_of_the_library() -> None:
    """Names, parameters, and the fields of what they return."""
    pynvml = pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
    for name, parameters in nvml.FUNCTIONS.items():
        required = [
            parameter.name
            for parameter in inspect.signature(getattr(pynvml, name)).parameters.values()
            if parameter.default is inspect.Parameter.empty
        ]
        assert tuple(required) == parameters, name
    assert "total" in dict(pynvml.c_nvmlMemory_t._fields_)
    assert issubclass(pynvml.NVMLError, Exception)


def test_the_stand_in_has_what_is_called_and_no_more() -> None:
    own = {name for name in vars(StandIn) if name.startswith("nvml")}
    assert own == set(nvml.FUNCTIONS)
    for name, parameters in nvml.FUNCTIONS.items():
        assert tuple(inspect.signature(getattr(StandIn(), name)).parameters) == parameters


@pytest.mark.parametrize("as_bytes", [False, True])
def test_nvml_lists_name_memory_and_capability(as_bytes: bool) -> None:
    listed = gpus.of_nvml(nvml.answer(StandIn(H100, A100, as_bytes=as_bytes)))
    assert (listed.gpus, listed.driver, listed.source) == (
        [H100, A100],
        "580.95.05",
        "nvidia-ml-py",
    )
    assert str(H100) == "NVIDIA H100 80GB HBM3, 79.6 GiB, compute capability 9.0"


def test_nvml_without_a_driver_is_a_reason() -> None:
    listed = gpus.of_nvml(nvml.answer(StandIn()))
    assert (list(listed.gpus), listed.problem) == ([], "nvidia-ml-py: Driver Not Loaded")


SMI = """\
NVIDIA H100 80GB HBM3, 81559, 580.95.05, 9.0, GPU-11111111-a
NVIDIA GB10, [N/A], 580.95.05, 12.1, GPU-33333333-c
"""


def test_nvidia_smi_lists_the_same() -> None:
    listed = gpus.of_nvidia_smi(SMI)
    assert listed.driver == "580.95.05" and [g.capability for g in listed.gpus] == [(9, 0), (12, 1)]
    assert [gpu.memory_bytes for gpu in listed.gpus] == [81_559 << 20, 0]
    with pytest.raises(ValueError, match="nvidia-smi printed No devices"):
        gpus.of_nvidia_smi("No devices were found\n")


def program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!{sys.executable}\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of programs in front of all others; without nvidia-ml-py."""
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(gpus, "find_spec", lambda _: None)
    yield tmp_path


def test_nvidia_smi_is_asked_where_there_is_no_library(path: Path) -> None:
    program(path, "nvidia-smi", f"import sys\nassert 'uuid' in sys.argv[1]\nprint({SMI!r}, end='')")
    assert gpus.listed() == gpus.of_nvidia_smi(SMI)


@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("import time; time.sleep(60)", "nvidia-smi did not answer in 0.3 s"),
        ("import sys; print('Failed to initialize NVML'); sys.exit(9)", "exit code 9: Failed to"),
        ("print('a, b')", "nvidia-smi printed a,b"),
    ],
)
def test_a_broken_driver_is_a_reason(
    path: Path, monkeypatch: pytest.MonkeyPatch, script: str, problem: str
) -> None:
    program(path, "nvidia-smi", script)
    limit = 0.3 if "sleep" in script else 60
    monkeypatch.setattr(gpus, "output_of", partial(answers.output_of, limit_s=limit))
    listed = gpus.listed()
    assert not listed.gpus and problem in listed.problem


def test_a_library_that_crashes_is_a_reason(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "find_spec", lambda _: object())
    monkeypatch.setenv("PYTHONPATH", str(path))
    (path / "pynvml.py").write_text("import os\nos.abort()\n")
    monkeypatch.setattr(gpus.shutil, "which", lambda _: None)
    assert "ended with exit code -6" in gpus.listed().problem


@pytest.mark.parametrize(
    ("devices", "expected"),
    [
        (None, [H100, A100]),
        ("1,0", [A100, H100]),
        ("0", [H100]),
        ("", []),
        ("-1", []),
        ("0,7,1", [H100]),  # CUDA: ends at the first that is not there
        ("GPU-2222", [A100]),
        ("MIG-GPU-1", []),
    ],
)
def test_cuda_visible_devices(devices: str | None, expected: list[Gpu]) -> None:
    assert gpus.visible([H100, A100], devices) == expected


# -- kernels


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """flash-attn 2 and torch's own are here, others are not."""
    here = {PACKAGES[name].module for name in ("flash", "varlen")}
    monkeypatch.setattr(kernel_packages, "module_path", lambda m: Path(m) if m in here else None)


def test_kernels_of_a_hopper(installed: None) -> None:
    rows = dict(kernels.rows([H100, H100], CUDA))
    assert rows["kernel flash"] == rows["kernel varlen"] == kernels.INSTALLED
    missing = "it needs flash_attn_interface, which is not installed; pip install flash-attn-3 "
    assert rows["kernel flash3"].startswith(missing)
    assert (rows["kernel sdpa"], rows["kernel auto"]) == ("can be used", "takes flash")


def test_kernels_of_unequal_gpus(installed: None) -> None:
    rows = dict(kernels.rows([H100, A100], CUDA))
    assert rows["kernel flash3"].startswith("on 8.x: it needs compute capability 9.0; run on a")
    assert "on 9.x: it needs flash_attn_interface" in rows["kernel flash3"]
    assert rows["kernel auto"] == "takes flash"


@pytest.mark.parametrize("build", [None, TorchBuild("2.14.1+cpu", None, None, "")])
def test_a_torch_without_cuda_has_no_gpu(installed: None, build: TorchBuild | None) -> None:
    rows = dict(kernels.rows([H100], build))
    assert rows["kernel flash"] == kernel_packages.NO_DEVICE and rows["kernel auto"] == "takes sdpa"


@pytest.mark.parametrize("major", [None, 7, 8, 9, 10, 11, 12, 13])
def test_the_answers_are_those_of_the_room_of_attention(
    installed: None, monkeypatch: pytest.MonkeyPatch, major: int | None
) -> None:
    """Which asks torch for the GPU and loads the package."""
    import torch

    from ropewalk.train.attention import backend
    from ropewalk.train.attention.support import Requirements

    monkeypatch.setattr(torch.cuda, "is_available", lambda: major is not None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (major, 0))
    monkeypatch.setattr(backend, "why_not_importable", kernel_packages.why_not_there)
    listed = [] if major is None else [Gpu("x", 0, (major, 0))]
    rows = dict(kernels.rows(listed, CUDA))
    for name, kernel in backend.GPU_KERNELS.items():
        expected = backend.why_unavailable(kernel, Requirements()) or kernels.INSTALLED
        assert rows[f"kernel {name}"] == expected
    assert rows["kernel auto"] == f"takes {backend.select_backend('auto', Requirements())[0]}"


def test_a_package_is_seen_without_its_import(tmp_path: Path, monkeypatch: Any) -> None:
    """Also a module in a package, which importlib would import."""
    (tmp_path / "flash_attn" / "cute").mkdir(parents=True)
    (tmp_path / "flash_attn" / "__init__.py").write_text("raise SystemError")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert kernel_packages.why_not_there(PACKAGES["flash"]) == ""
    assert "not installed; pip" in kernel_packages.why_not_there(PACKAGES["flash4"])
    (tmp_path / "flash_attn" / "cute" / "__init__.py").touch()
    assert kernel_packages.why_not_there(PACKAGES["flash4"]) == ""
    assert "flash_attn" not in sys.modules

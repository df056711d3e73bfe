"""The packages of attention kernels: the GPUs that each is built for, how it is installed, and why
it cannot be used here. Without torch: `ropewalk env` asks too.
"""

import importlib
import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass

from ropewalk.train.torch_build import module_path, torch_build

AMPERE, HOPPER, BLACKWELL, THOR, CONSUMER_BLACKWELL = 8, 9, 10, 11, 12
"""NVIDIA's major compute capabilities; 8 is Ada too."""
NO_DEVICE = "it needs a CUDA device; run on a GPU"


def cuda_tag(version: str | None) -> str:
    """The folder of PyTorch's index for a CUDA version: flash-attn 3 lies in cu126 to cu130."""
    return "cu128" if version is not None and version.startswith("12.") else "cu130"


def _cuda() -> str | None:
    build = torch_build()
    return None if build is None else build.cuda


@dataclass(frozen=True, kw_only=True)
class KernelPackage:
    """The package of a kernel."""

    name: str
    """As in `train.attention.kernel`."""
    module: str
    distribution: str
    install: str
    majors: tuple[int, ...]
    """Major compute capabilities on which it trains."""
    package_function: str = "flash_attn_varlen_func"


PACKAGES = {
    package.name: package
    for package in (
        KernelPackage(
            name="flash4",
            module="flash_attn.cute",
            distribution="flash-attn-4",
            install="pip install -e '.[flash4]'",
            majors=(HOPPER, BLACKWELL, THOR, CONSUMER_BLACKWELL),
        ),
        KernelPackage(
            name="flash3",
            module="flash_attn_interface",
            distribution="flash-attn-3",
            install="pip install flash-attn-3 --index-url https://download.pytorch.org/whl/"
            + cuda_tag(_cuda()),
            majors=(HOPPER,),
        ),
        KernelPackage(
            name="flash",
            module="flash_attn",
            distribution="flash-attn",
            install="pip install --no-build-isolation -e '.[flash]'",
            majors=(AMPERE, HOPPER, BLACKWELL, THOR, CONSUMER_BLACKWELL),
        ),
        KernelPackage(
            name="varlen",
            module="torch.nn.attention.varlen",
            distribution="torch",
            install="install a newer torch",
            majors=(AMPERE, HOPPER, BLACKWELL, THOR, CONSUMER_BLACKWELL),
            package_function="varlen_attn",
        ),
    )
}
AUTO_ORDER = {
    AMPERE: ("flash", "varlen"),
    HOPPER: ("flash3", "flash4", "flash", "varlen"),
    BLACKWELL: ("flash4", "flash", "varlen"),
    THOR: ("flash4", "flash", "varlen"),
    CONSUMER_BLACKWELL: ("flash", "varlen"),
}
"""The kernels that `auto` tries on each major compute capability, the fastest first."""


def why_unusable(
    package: KernelPackage, major: int | None, why_missing: Callable[[KernelPackage], str]
) -> str:
    """Why a kernel cannot run on a GPU, with the way out; empty if it can.

    `major`: of the GPU's compute capability, None without a GPU. `why_missing`: what else is asked
    of a kernel that is built for it.
    """
    if major is None:
        return NO_DEVICE
    if major in package.majors:
        return why_missing(package)
    if major < package.majors[0]:
        return f"it needs compute capability {package.majors[0]}.0; run on a newer GPU"
    supported = " and ".join(f"{n}.x" for n in package.majors)
    fitting = ", ".join(AUTO_ORDER.get(major, ())) or "sdpa"
    return f"it is built for compute capability {supported}, not {major}.x; set {fitting}"


def auto_choice(
    major: int | None, why_unfit: Callable[[KernelPackage], str]
) -> tuple[str, dict[str, str]]:
    """The kernel that `auto` takes on a GPU of this major compute capability, and why not the
    faster ones, by name. `why_unfit`: of one that is built for it."""
    reasons: dict[str, str] = {}
    for name in AUTO_ORDER.get(major, ()) if major is not None else ():
        reason = why_unusable(PACKAGES[name], major, why_unfit)
        if not reason:
            return name, reasons
        reasons[name] = reason
    return "sdpa", reasons


def why_not_importable(package: KernelPackage) -> str:
    """Why a package cannot be used, with the way out; empty if it can. Loads it, and torch."""
    try:
        module = importlib.import_module(package.module)
    except (ImportError, OSError) as error:  # OSError: built against another torch or CUDA
        reason = " ".join(str(error).split())[:160]
        return f"it needs {package.module}, which does not load ({reason}); {package.install}"
    if hasattr(module, package.package_function):
        return ""
    function = f"{package.module}.{package.package_function}"
    return f"it needs {function}, which is not there; {package.install}"


def why_not_there(package: KernelPackage) -> str:
    """Why a package has no files here, with the way out; empty if it has. Loads nothing."""
    if module_path(package.module) is not None:
        return ""
    return f"it needs {package.module}, which is not installed; {package.install}"

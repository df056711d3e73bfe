"""The report of `ropewalk env`: rows of a name and a value, by section."""

import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypedDict

from ropewalk.conf.artifacts.folders import CACHE_DIR, RUNS_DIR
from ropewalk.conf.errors import ConfigError
from ropewalk.launch.environment import disks, gpus, kernels, packages, shown, system
from ropewalk.launch.environment.answers import LIMIT_S, NoAnswerError, child_json, start
from ropewalk.train.launcher.environment import LAUNCHER_VARIABLE, RANK_VARIABLE, SHELL_VARIABLE
from ropewalk.train.torch_build import torch_build

PROBE = "ropewalk.launch.environment.probe"
PROBE_LIMIT_S = 120.0
LAUNCHERS = ("torchrun", "deepspeed", "srun", "sbatch", "mpirun", "pdsh")
FOLDERS = {"cache_dir": CACHE_DIR, "runs_dir": RUNS_DIR}
NO_PROBE = "--probe imports torch and asks it"
Pairs = Iterable[tuple[str, str]]
Question = Callable[[], Pairs]


class Row(TypedDict):
    """One fact."""

    name: str
    value: str
    section: str


def rows(words: Sequence[str], probe: bool) -> list[Row]:
    """All rows, in order; what does not answer is a row that says so.

    `words`: `cache_dir=DIR` and `runs_dir=DIR`, for other folders than the defaults. `probe`: ask
    torch too. Raises: ConfigError for other words.
    """
    folders = {f"cache {name}": folder for name, folder in disks.caches(os.environ).items()}
    folders |= FOLDERS | dict(map(_folder, words))
    begun = [
        (section, name, start(partial(_list, question), limit_s))
        for section, name, question, limit_s in _questions(folders, probe)
    ]
    result = [
        Row(name=row_name, value=value, section=section)
        for section, name, wait in begun
        for row_name, value in _answered(name, wait)
    ]
    return _once(result)


def _questions(
    folders: Mapping[str, str], probe: bool
) -> Iterator[tuple[str, str, Question, float]]:
    """Section, name where there is no answer, the question, and its limit in seconds."""
    yield "system", "ropewalk", lambda: [("ropewalk", packages.ropewalk_text())], LIMIT_S
    yield "system", "system", system.rows, LIMIT_S
    yield "packages", "packages", packages.rows, LIMIT_S
    yield "GPUs", "GPUs", gpu_rows, 3 * LIMIT_S  # of its programs, each has a limit
    yield "variables", "variables", partial(variables, os.environ), LIMIT_S
    for name, folder in folders.items():
        yield "disks", name, partial(_disk, name, folder), LIMIT_S
    yield "launchers", "launchers", launchers, LIMIT_S
    yield "extras", "extras", packages.extras, LIMIT_S
    if probe:
        question = lambda: child_json(PROBE, PROBE_LIMIT_S).items()  # noqa: E731
        yield "torch", "torch probe", question, PROBE_LIMIT_S + LIMIT_S


def _list(question: Question) -> list[tuple[str, str]]:
    return list(question())


def _answered(name: str, wait: Callable[[], list[tuple[str, str]]]) -> list[tuple[str, str]]:
    """The rows of a question, or one that says why there are none: a report about a broken machine
    is what it is for."""
    try:
        return wait()
    except NoAnswerError as error:
        return [(name, str(error))]
    except Exception as error:
        return [(name, shown.path(f"cannot be told ({type(error).__name__}: {error})"))]


def _once(listed: Sequence[Row]) -> list[Row]:
    """What torch itself says of a kernel takes the place of what its package's files say."""
    probed = {row["name"]: row["value"] for row in listed if row["section"] == "torch"}
    before = {row["name"] for row in listed if row["section"] != "torch"}
    return [
        Row(name=row["name"], value=probed.get(row["name"], row["value"]), section=row["section"])
        for row in listed
        if row["section"] != "torch" or row["name"] not in before
    ]


def _folder(word: str) -> tuple[str, str]:
    key, _, value = word.partition("=")
    if key not in FOLDERS or not value:
        raise ConfigError(
            f"{word} is no setting of env; it takes {' and '.join(f'{key}=DIR' for key in FOLDERS)}"
            ", the folders that it looks at; leave it out"
        )
    return key, value


def _disk(name: str, folder: str) -> Pairs:
    yield name, disks.described(folder)


def gpu_rows() -> Iterator[tuple[str, str]]:
    """The driver's GPUs, those that CUDA_VISIBLE_DEVICES leaves, and the kernels that fit them."""
    listed, build = gpus.listed(), torch_build()
    devices = os.environ.get("CUDA_VISIBLE_DEVICES")
    usable = gpus.visible(listed.gpus, devices)
    yield "GPUs", f"{len(listed.gpus)}" if listed.gpus else f"none ({listed.problem})"
    if listed.driver:
        yield "driver", f"{listed.driver} (by {listed.source})"
    for number, gpu in enumerate(listed.gpus):
        yield f"GPU {number}", str(gpu)
    if devices is not None and listed.gpus:
        yield "GPUs visible", f"{len(usable)}"
    yield from kernels.rows(usable, build)


def variables(env: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """What affects the ranks; of a launcher's own variables the names alone."""
    for name in sorted(env):
        if RANK_VARIABLE.match(name) or SHELL_VARIABLE.match(name):
            yield shown.path(name), shown.value(name, env[name])
    names = sorted(name for name in env if LAUNCHER_VARIABLE.match(name))
    if names:
        yield "inside a launcher", ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")


def launchers() -> Iterator[tuple[str, str]]:
    """Programs that start ranks: on PATH, or beside this Python."""
    beside = str(Path(sys.executable).parent)
    for name in LAUNCHERS:
        on_path, here = shutil.which(name), shutil.which(name, path=beside)
        found = on_path or here
        note = "" if on_path or not here else " (not on PATH)"
        yield f"launcher {name}", f"{shown.path(found)}{note}" if found else "not found"


def as_text(listed: Sequence[Row]) -> str:
    """To paste: a fence around lines of `name: value`, with an empty line between sections."""
    lines, section = ["```"], listed[0]["section"] if listed else ""
    for row in listed:
        if row["section"] != section:
            section = row["section"]
            lines.append("")
        lines.append(f"{row['name']}: {row['value']}")
    if not any(row["section"] == "torch" for row in listed):
        lines += ["", NO_PROBE]
    return "\n".join([*lines, "```"])

"""`ropewalk VERB [key=value ...]`: compose, check, freeze, run the stages."""

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from ropewalk.conf.artifacts.disk import disk_error
from ropewalk.conf.errors import FAILED, STOPPED, ConfigError, ProofError, RopewalkError
from ropewalk.conf.launchers import SUBMITTED
from ropewalk.launch.arguments import parse
from ropewalk.launch.interrupt import STOPPED_LINE, bounded_interrupt
from ropewalk.launch.output import (
    print_outputs,
    read_results,
    refused_gates,
    show_rope,
    show_samples,
)
from ropewalk.launch.verbs import WITHOUT_A_RUN
from ropewalk.train.launcher.process import (
    gc_paused_imports,
    ignore_library_warnings,
    without_package,
)

if TYPE_CHECKING:
    from ropewalk.conf.schema import Config
    from ropewalk.launch.pipeline.run import Run


def main(argv: Sequence[str] | None = None) -> None:
    """The console script. Exits with the codes of `conf.errors`."""
    arguments = parse(argv)
    try:
        with bounded_interrupt():
            run_command(arguments)
    except RopewalkError as error:
        sys.exit(report(error))
    except KeyboardInterrupt:
        print(STOPPED_LINE, file=sys.stderr)
        sys.exit(STOPPED)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILED)
    except Exception as error:
        if (problem := disk_error(error)) is None:
            raise
        sys.exit(report(problem))


def run_command(arguments: argparse.Namespace) -> None:
    """Show settings, runs, a comparison or the machine, or do what the verb asks of every run.

    Raises: RopewalkError.
    """
    refuse_removed_working_folder()
    if arguments.verb in WITHOUT_A_RUN and not getattr(arguments, "cfg", None):
        WITHOUT_A_RUN[arguments.verb](arguments)
        return
    from ropewalk.launch import nodes

    if is_sweep(arguments):
        nodes.refuse_sweep(arguments.overrides)
        run_sweep(arguments)
        return
    checked = configs(arguments)
    if arguments.cfg:
        run_all(arguments, checked)
        return
    if arguments.dry_run and len(checked) > 1 and checked[0][1].launch.kind == "slurm":
        show_arrays(arguments)
        return
    every = [config for _, config in checked]
    body = partial(run_all, arguments, checked)
    nodes.run(every, body, partial(recorded_attempt, arguments, every), arguments.dry_run)


def run_all(arguments: argparse.Namespace, checked: Sequence[tuple[list[str], "Config"]]) -> None:
    """Do what the verb asks of every run. Raises: RopewalkError."""
    refused = []
    for overrides, config in checked:
        folder = run_verb(arguments, overrides, config)
        if folder is not None and arguments.verb in ("run", "eval"):
            refused += refused_gates(read_results(folder), config.eval.strict)
    if refused:  # once everything is written: a sweep goes on to its end
        raise ProofError("\n".join(refused))


def recorded_attempt(
    arguments: argparse.Namespace, configs: Sequence["Config"]
) -> AbstractContextManager[None]:
    """In a Slurm job, the record of its attempt at a run, and the guard before it."""
    looks = arguments.cfg or arguments.dry_run or getattr(arguments, "shard", None)
    if "SLURM_JOB_ID" not in os.environ or len(configs) > 1 or looks or arguments.verb == "check":
        return nullcontext()
    from ropewalk.launch.cluster import command as cluster
    from ropewalk.launch.cluster import job

    config = configs[0]
    return nullcontext() if cluster.submits(config) else job.recorded(config, arguments.verb)


def refuse_removed_working_folder() -> None:
    """Raises: ConfigError when the working folder was removed while the shell stood in it."""
    try:
        os.getcwd()
    except FileNotFoundError as error:
        raise ConfigError(
            "the working folder is gone; relative paths begin there, and it must exist; cd to a "
            "folder that does"
        ) from error


def report(error: RopewalkError) -> int:
    """Print the error's lines; returns its exit code."""
    kind = type(error).__name__.removesuffix("Error").lower()
    head = "config error:" if isinstance(error, ConfigError) else f"{kind}:"
    print(f"{head}\n{error}", file=sys.stderr)
    return error.exit_code


def configs(arguments: argparse.Namespace) -> list[tuple[list[str], "Config"]]:
    """Overrides and settings of every run, all checked before the first run starts.

    Raises: ConfigError with the problems of all runs, each line once.
    """
    from ropewalk.launch.config import compose

    words = _all_words(arguments)
    if not (arguments.multirun or _names_a_sweep(arguments)):
        return [(words, compose.compose(words, arguments.verb))]
    from ropewalk.launch.sweep import chosen, runs, search_plan

    choice = chosen.choose(words)
    if choice.settings.kind == "search":
        search = search_plan.plan(choice, arguments.verb)
        return [(search.words, search.config)]
    planned = runs.planned_runs(choice, arguments.verb)
    return [([*run.words], run.config) for run in planned]


SWEPT = ("run", "train", "eval", "data", "calibrate", "report", "export")
"""Verbs whose runs of a sweep are jobs of a pool; the others only show, one after the other."""


def is_sweep(arguments: argparse.Namespace) -> bool:
    """Whether the command makes several runs: `-m`, or `sweep=NAME`."""
    shows = ("cfg", "dry_run", "json", "show", "export", "shard", "merge")
    if arguments.verb not in SWEPT or any(getattr(arguments, flag, None) for flag in shows):
        return False
    return arguments.multirun or _names_a_sweep(arguments)


def _names_a_sweep(arguments: argparse.Namespace) -> bool:
    return any(word.startswith("sweep=") for word in arguments.overrides)


def run_sweep(arguments: argparse.Namespace) -> None:
    """All runs of a sweep, and their comparison. Raises: RopewalkError."""
    from ropewalk.launch.sweep import chosen, runner

    choice = chosen.choose(_all_words(arguments))
    words = arguments.overrides
    if choice.settings.kind == "search":
        from ropewalk.launch.sweep import search

        search.run(choice, arguments.verb, words)
    else:
        runner.run(choice, arguments.verb, words)


def show_arrays(arguments: argparse.Namespace) -> None:
    """`--dry-run` of a sweep on Slurm: print and write its scripts. Raises: ConfigError."""
    from ropewalk.launch.sweep import chosen, runner

    runner.show(chosen.choose(_all_words(arguments)), arguments.verb)


def _all_words(arguments: argparse.Namespace) -> list[str]:
    from ropewalk.launch.config.compose import config_dir_override

    folder = arguments.config_dir
    return [*arguments.overrides, *([config_dir_override(folder)] if folder else [])]


def run_verb(
    arguments: argparse.Namespace, overrides: Sequence[str], config: "Config"
) -> Path | None:
    """Do what the verb and its flags ask of one run; the folder of its results, where stages ran.

    Raises: RopewalkError.
    """
    if arguments.cfg:
        from ropewalk.conf.check import to_yaml

        print(to_yaml(config), end="")
        return None
    if config.launch.kind in SUBMITTED:
        submit(arguments, overrides, config)
        return None
    if arguments.verb == "check":
        self_test(config, arguments.dry_run, arguments.json)
        return None
    if arguments.dry_run:
        check(arguments.verb, config)
        return None
    if getattr(arguments, "shard", None) is not None:
        make_shards(config, arguments.shard)
        return None
    if (folder := skip_all(arguments, overrides, config)) is not None:
        return folder
    as_json = getattr(arguments, "json", False)
    with redirect_stdout(sys.stderr) if as_json else nullcontext():  # stdout holds the JSON alone
        run = run_stages(arguments, overrides, config)
    if arguments.verb == "rope" and not as_json:
        show_rope(run, arguments.compare.split(",") if arguments.compare else [])
    if arguments.verb == "data" and arguments.show:
        show_samples(run, arguments.show)
    print_outputs(arguments.verb, run.output, as_json, typed(arguments, overrides))
    return run.output


def skip_all(
    arguments: argparse.Namespace, overrides: Sequence[str], config: "Config"
) -> Path | None:
    """Print that every stage is done, where that is certain without loading a library; the run's
    folder then, else None."""
    from ropewalk.launch.pipeline import unchanged

    if any(getattr(arguments, flag, None) for flag in ("json", "show", "export", "merge")):
        return None
    stages = unchanged.finished_stages(config, arguments.verb)
    if stages is None:
        return None
    for stage in stages:
        print(f"{stage}: done before with the same settings and inputs; skipped")
    folder = unchanged.folder_of(config)
    print_outputs(arguments.verb, folder, as_json=False, words=typed(arguments, overrides))
    return folder


def submit(arguments: argparse.Namespace, overrides: Sequence[str], config: "Config") -> None:
    """Hand a run to a cluster. Raises: RopewalkError."""
    from ropewalk.launch.cluster import command as cluster

    flags = [name for name in cluster.FLAGS if getattr(arguments, name, None)]
    cluster.refuse_flags(config, flags)
    load_libraries()
    words = typed(arguments, overrides)
    cluster.run(config, arguments.verb, words, dry_run=arguments.dry_run)


def check(verb: str, config: "Config") -> None:
    """`--dry-run`. Raises: ConfigError, DataError."""
    load_libraries()
    from ropewalk.launch.pipeline import stages

    print(stages.check(config, verb))


def self_test(config: "Config", dry_run: bool, as_json: bool) -> None:
    """`ropewalk check`. Raises: ConfigError, ProofError with the names of the lines that failed."""
    load_libraries()
    from ropewalk.launch.check import command as checks

    if dry_run:
        print(checks.describe(config))
    elif failed := checks.run_and_print(config, as_json):
        raise ProofError(f"check: {', '.join(failed)}")


def make_shards(config: "Config", task: str) -> None:
    """`--shard I/N`. A malformed task is refused before anything loads.

    Raises: ConfigError, DataError.
    """
    from ropewalk.data.tokens import shards

    number, count = shards.parse_task(task)
    load_libraries()
    from ropewalk.launch.pipeline import stages

    print(stages.make_shards(config, number, count))


def run_stages(arguments: argparse.Namespace, overrides: Sequence[str], config: "Config") -> "Run":
    """Run the verb's stages, and write the dataset of `--export`. Raises: RopewalkError."""
    load_libraries()
    from ropewalk.launch.pipeline.preflight import refuse_unfit_shards
    from ropewalk.launch.pipeline.stages import execute

    if getattr(arguments, "merge", False):
        refuse_unfit_shards(config)
    target = getattr(arguments, "export", None)
    if target:
        refuse_export(config, target)
    run = execute(config, arguments.verb, command(arguments.verb, overrides))
    if target:
        write_export(run, Path(target))
    return run


def refuse_export(config: "Config", target: str) -> None:
    """Check folder and settings of `data --export`. Raises: ConfigError."""
    from ropewalk.data import export
    from ropewalk.launch.config.phases import phase_configs

    export.target(target)
    data = phase_configs(config)[-1].data
    export.refuse(data.document_mask, data.positions, data.pose.target_length)


def write_export(run: "Run", target: Path) -> None:
    """Write the run's sequences for other programs. Raises: RopewalkError."""
    from ropewalk.data import export
    from ropewalk.data.dataset import DataArtifacts

    _, message = export.write(DataArtifacts.of(run.output, run.cache), target)
    print(f"{message}\nwrote {target}")


def typed(arguments: argparse.Namespace, overrides: Sequence[str]) -> list[str]:
    """The words after the verb that give one run's settings again."""
    folder = ["--config-dir", arguments.config_dir] if arguments.config_dir else []
    return [*folder, *(o for o in overrides if not o.startswith("hydra."))]


def command(verb: str, overrides: Sequence[str]) -> str:
    """The command as typed, for the report, without the user's folders."""
    from ropewalk.launch.runs.following import without_folders

    return shlex.join(["ropewalk", verb, *without_folders(overrides)])


@cache  # a sweep imports once
def load_libraries() -> None:
    """Import torch and transformers without their notices, and fix DeepSpeed's device on a CPU."""
    ignore_library_warnings()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    with gc_paused_imports(), without_package("mlflow"):
        import torch
        import transformers

        import ropewalk.train.base  # noqa: F401  every verb locates the base
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    transformers.utils.logging.disable_progress_bar()


if __name__ == "__main__":
    main()

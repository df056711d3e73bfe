"""What a command does whose `launch` names a cluster: check, write its files, submit."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from ropewalk.conf.artifacts.records import write_text
from ropewalk.conf.errors import ConfigError
from ropewalk.conf.launchers import SUBMITTED
from ropewalk.conf.schema import Config
from ropewalk.launch.cluster import kubernetes, skypilot, slurm
from ropewalk.launch.cluster.words import job_words

FLAGS = ("compare", "export", "json", "merge", "shard", "show")
"""Of verbs, which print something or make a part: they go with a command on the machine."""


def submits(config: Config) -> bool:
    """Whether the command hands its run to a cluster."""
    return config.launch.kind in SUBMITTED


def refuse_flags(config: Config, flags: Sequence[str]) -> None:
    """Raises: ConfigError for flags of a command that runs here."""
    if flags:
        raise ConfigError(
            f"launch is {config.launch.kind}; --{flags[0]} goes with a command that runs at once; "
            "leave one of them out (launch.slurm.data.tasks makes the data's shards in an array)"
        )


def run(config: Config, verb: str, typed: Sequence[str], dry_run: bool) -> None:
    """Check what can be checked here; then submit to Slurm, or write the files for the others.

    `typed`: the words after the verb. Raises: RopewalkError.
    """
    print(_checked(slurm.as_in_the_job(config), verb))
    if config.launch.kind != "slurm":
        _write_manifests(config, verb, typed)
    elif dry_run:
        slurm.show(config, verb, typed)
    else:
        slurm.run(config, verb, typed)


def _checked(config: Config, verb: str) -> str:
    """The preflight. Raises: ConfigError, DataError."""
    if verb == "check":
        from ropewalk.launch.check import command as checks

        return checks.describe(config)
    from ropewalk.launch.pipeline import stages

    return stages.check(config, verb)


def _write_manifests(config: Config, verb: str, typed: Sequence[str]) -> None:
    """Print and write the files; nothing is applied."""
    folder = Path(config.runs_dir).expanduser() / config.name / config.launch.kind
    folder.mkdir(parents=True, exist_ok=True)
    for file, manifest in manifests(config, verb, typed).items():
        text = as_yaml(manifest)
        write_text(folder / file, text)
        print(f"--- {folder / file}\n{text}", end="")
    print(f"wrote {folder}; {_next(config, folder)}")


def manifests(config: Config, verb: str, typed: Sequence[str]) -> dict[str, dict[str, Any]]:
    """By file name."""
    launch = config.launch
    command = ["ropewalk", *job_words(verb, typed, launch)]
    if launch.kind == "skypilot":
        return {"sky.yaml": skypilot.task(launch, config.name, command)}
    return {
        "trainjob.yaml": kubernetes.train_job(launch, config.name, command),
        "jobset.yaml": kubernetes.job_set(launch, config.name, command),
    }


def as_yaml(manifest: dict[str, Any]) -> str:
    """In the order of the keys; text of several lines as a block."""
    return yaml.dump(manifest, Dumper=_Dumper, sort_keys=False, width=100, allow_unicode=True)


class _Dumper(yaml.SafeDumper):
    """Writes text of several lines as it reads, and each list in full."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def _next(config: Config, folder: Path) -> str:
    if config.launch.kind == "skypilot":
        return f"start it with: sky launch {folder / 'sky.yaml'}"
    return (
        f"apply one of them: kubectl apply -f {folder / 'trainjob.yaml'} (with Kubeflow Trainer), "
        f"or kubectl apply -f {folder / 'jobset.yaml'}"
    )

"""The verbs that run no stage: they list, compare, plan, pack or run another command again."""

import argparse
from collections.abc import Callable

from ropewalk.launch.output import show_environment, show_runs, show_settings


def list_recipes(arguments: argparse.Namespace) -> None:
    """`ropewalk recipes`. Raises: ConfigError."""
    from ropewalk.launch.recipes import command as recipes

    recipes.run(arguments)


def reproduce(arguments: argparse.Namespace) -> None:
    """`ropewalk reproduce`. Raises: RopewalkError."""
    from ropewalk.launch.reproduce import command

    command.run(arguments)


def pack(arguments: argparse.Namespace) -> None:
    """`ropewalk pack`. Raises: RopewalkError."""
    from ropewalk.launch.reproduce import pack as archive

    print(f"wrote {archive.write(arguments.run, arguments.output, arguments.weights)}", flush=True)


def compare(arguments: argparse.Namespace) -> None:
    """`ropewalk compare`. Raises: RopewalkError."""
    from ropewalk.launch.compare import command

    command.run(arguments.runs, arguments.baseline, arguments.output, arguments.json)


def plan(arguments: argparse.Namespace) -> None:
    """`ropewalk plan`. Raises: RopewalkError."""
    from ropewalk.launch.cli import configs
    from ropewalk.launch.plan import command

    command.run(arguments, lambda: configs(arguments)[0][1])


WITHOUT_A_RUN: dict[str, Callable[[argparse.Namespace], None]] = {
    "settings": lambda given: show_settings(given.word, given.json, given.markdown),
    "runs": lambda given: show_runs(given.folder, given.json),
    "env": lambda given: show_environment(given.overrides, given.probe, given.json),
    "recipes": list_recipes,
    "reproduce": reproduce,
    "pack": pack,
    "compare": compare,
    "plan": plan,
}
"""Verbs that run no stage."""

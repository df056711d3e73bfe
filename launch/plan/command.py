"""`ropewalk plan`: one answer, or a table over lengths and numbers of GPUs."""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ropewalk.conf import hardware_file
from ropewalk.conf.errors import ConfigError
from ropewalk.conf.schema import Config
from ropewalk.launch.config.phases import phase_configs
from ropewalk.launch.plan import search, text
from ropewalk.launch.plan.ask import Asked, Tracers, or_raise
from ropewalk.launch.plan.price import Price, cost, price_of
from ropewalk.launch.plan.verdict import FITS


def run(arguments: argparse.Namespace, compose: Callable[[], Config]) -> None:
    """Print the plan. `compose` returns the checked settings. Raises: RopewalkError."""
    hardware = hardware_file.load(arguments.hardware)
    price = None if arguments.price is None else price_of(arguments.price, hardware)
    with Tracers() as ask:  # a child loads torch while the settings are composed
        config = compose()
        gpus = arguments.gpus or [default_gpus(config, hardware.gpus_per_node)]
        if arguments.lengths or len(gpus) > 1:
            _print_table(arguments, config, gpus, ask, price)
        else:
            _print_plan(arguments, config, gpus[0], ask, price)


def default_gpus(config: Config, gpus_per_node: int) -> int:
    """As `launch.nodes` and `train.launcher` start them: those of a hostfile, or of one node."""
    from ropewalk.train.launcher.hostfile import hosts

    launcher = config.train.launcher
    on_node = launcher.ranks_per_node or gpus_per_node
    if launcher.hostfile is None:
        return on_node * (config.launch.nodes or 1)
    file = Path(launcher.hostfile).expanduser()
    return on_node * (len(hosts(file.read_text())) if file.is_file() else 1)


def _print_plan(
    arguments: argparse.Namespace, config: Config, gpus: int, ask: search.Ask, price: Price | None
) -> None:
    questions = [Asked(one, arguments.hardware, gpus) for one in phase_configs(config)]
    for question in questions:
        refuse_without_length(question.config)
    phases = [or_raise(answer) for answer in ask(questions)]
    for question, phase in zip(questions, phases, strict=True):
        phase["hardware"] = arguments.hardware
        phase |= cost(phase["gpu_hours"], price) if price else {}
        if phase["verdict"] != FITS and not arguments.no_search:
            _add_changes(phase, question, ask)
    if arguments.page:
        from ropewalk.launch.plan import page

        page.write(Path(arguments.page), phases)
    if arguments.json:
        print(json.dumps(phases[0] if len(phases) == 1 else {"schema": 1, "phases": phases}))
        return
    print(text.page(phases))
    if arguments.page:
        print(f"wrote {arguments.page}")


def _add_changes(phase: dict[str, Any], question: Asked, ask: search.Ask) -> None:
    per_node = hardware_file.load(question.hardware).gpus_per_node
    changes, answer = search.cheapest(question, per_node, ask, _tell)
    if answer is None:
        phase["no_change"] = (
            f"no change makes it fit {question.gpus} x {question.hardware}: start more GPUs "
            "(--gpus), or shorten data.seq_len"
        )
        return
    phase["changes"] = search.as_overrides(changes, question.config)
    phase["changed"] = {
        key: answer[key] for key in ("verdict", "peak_bytes", "host_bytes", "step_s", "mfu")
    }


def _tell(line: str) -> None:
    """Beside the answer, which may be JSON."""
    print(line, file=sys.stderr, flush=True)


def refuse_without_length(config: Config) -> None:
    """Raises: ConfigError without the length of a sequence."""
    if "data.seq_len" in config.unset:
        raise ConfigError(
            "data.seq_len is not set; it is required; add data.seq_len=VALUE, or --for LENGTHS"
        )


def _print_table(
    arguments: argparse.Namespace,
    config: Config,
    gpus: Sequence[int],
    ask: search.Ask,
    price: Price | None,
) -> None:
    config = phase_configs(config)[-1]
    if not arguments.lengths:
        refuse_without_length(config)
    lengths = arguments.lengths or [config.data.seq_len]
    questions = list(_questions(config, arguments.hardware, lengths, gpus))
    answers = ask(questions)
    rows: list[dict[str, Any]] = [
        {"seq_len": one.config.data.seq_len, "gpus": one.gpus, "hardware": one.hardware} | answer
        for one, answer in zip(questions, answers, strict=True)
    ]
    for row in rows:
        row |= cost(row["gpu_hours"], price) if price and "gpu_hours" in row else {}
    if arguments.json:
        print(json.dumps({"schema": 1, "rows": rows}))
    else:
        print(text.table(rows))


def _questions(
    config: Config, hardware: str, lengths: Sequence[int], gpus: Sequence[int]
) -> Iterator[Asked]:
    """A batch of about as many tokens at each length: a multiple of what the ranks read at once."""
    tokens = config.global_batch_tokens
    for length in lengths:
        for count in gpus:
            data = replace(config.data, seq_len=length)
            train = replace(config.train, batch_ramp=[])
            at_once = length * train.micro_batch_size * max(1, count // train.sp_size)
            train = replace(train, global_batch_tokens=max(1, round(tokens / at_once)) * at_once)
            unset = [key for key in config.unset if key != "data.seq_len"]
            changed = replace(config, data=data, train=train, unset=unset)
            yield Asked(changed, hardware, count)

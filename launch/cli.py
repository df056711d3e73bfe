"""`ropewalk VERB [key=value ...]`: compose, check, freeze, run the stages. Hydra ends here."""

import argparse
import os
import re
import shlex
import signal
import sys
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from ropewalk.conf.check import to_yaml
from ropewalk.conf.errors import FAILED, ConfigError, RopewalkError
from ropewalk.conf.schema import Config
from ropewalk.data.tokens import shards
from ropewalk.launch.output import print_outputs, show_rope, show_samples
from ropewalk.train.launcher.process import gc_paused_imports

if TYPE_CHECKING:
    from ropewalk.launch.pipeline.run import Run

VERBS = {
    "run": "every stage, skipping what is done",
    "rope": "the rope plan: what the scaling method does to each dimension",
    "data": "documents -> tokens -> plan, with the ledger",
    "train": "the stages up to the training",
    "eval": "the stages up to the measurements",
    "report": "the stages up to the report",
    "calibrate": "search the ramp and temperature for this model, on held-out long text, without training",
    "export": "hand the trained model to servers: both key styles, GGUF, flags, and what each engine reads",
}
EXAMPLES = """\
settings: key=value, as Hydra takes them. Groups: recipe=NAME (demo, smollm2, base, custom), rope=METHOD (none, pi, ntk,
dynamic, ntk_by_parts, yarn, llama3, longrope, abf, table), mixture=PRESET (fu, ultralong, olmo3, prolong_64k, prolong_512k,
uniform).

examples:
  ropewalk run recipe=demo
  ropewalk run model.path=./my-model rope.factor=4 data.seq_len=32768 data.sources.books.path=./books \\
      train.steps=200 train.lr=2e-5 train.global_batch_tokens=1048576 name=my-run
  ropewalk run recipe=demo rope=pi name=demo-pi          another method, the same data
  ropewalk run -m recipe=demo rope=pi,ntk,yarn           a sweep, one run a method
  ropewalk data recipe=demo --show 3                     the ledger, and three sequences to read
  ropewalk rope recipe=demo --compare pi,llama3,abf      what each method does to each dimension
  ropewalk calibrate recipe=demo                         the ramp for this model, by measurement; then
  ropewalk run recipe=demo name=mine rope=table rope.path=runs/demo/calibration/rope.json
  ropewalk data recipe=demo --shard 0/4                  a quarter of the tokenising; 1/4, 2/4 and 3/4 on other machines, then
  ropewalk data recipe=demo --merge                      their shards in one store, and the plan
  ropewalk export recipe=demo                            for servers: keys, GGUF, flags, warnings
  ropewalk run recipe=demo --cfg job                     show the whole configuration, run nothing

exit codes: 0 done, 1 failed, 2 configuration or data refused, 3 a proof said no, 75 stopped in good order (run again to resume)
"""


def main(argv: Sequence[str] | None = None) -> None:
    """The console script. Exits with the codes of `conf.errors`."""
    arguments = parse(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: finished stages are kept
    try:
        for overrides, config in configs(arguments):
            run_verb(arguments, overrides, config)
    except RopewalkError as error:
        head = (
            "config error:"
            if isinstance(error, ConfigError)
            else f"{type(error).__name__.removesuffix('Error').lower()}:"
        )
        print(f"{head}\n{error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("stopped; run the same command again: finished stages are kept", file=sys.stderr)
        sys.exit(75)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILED)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Flags and settings in any order."""
    top = parser()
    arguments, rest = top.parse_known_args(argv)
    if flags := [word for word in rest if word.startswith("-")]:
        top.error(f"unrecognized arguments: {' '.join(flags)}")
    arguments.overrides += rest
    if arguments.multirun and getattr(arguments, "export", None):
        top.error("--export goes with one run, not with --multirun")
    if getattr(arguments, "shard", None) is not None:
        idle = [f"--{name}" for name in ("export", "json", "show") if getattr(arguments, name)]
        if idle:
            top.error(f"--shard makes shards only, and no plan: not allowed with {', '.join(idle)}")
    return arguments


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="ropewalk",
        description="Extend a model's context with rotary positions, and prove each stage.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb, text in VERBS.items():
        sub = verbs.add_parser(
            verb,
            help=text,
            description=f"{verb}: {text}.",
            epilog=EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        sub.add_argument("overrides", nargs="*", metavar="key=value", help="settings")
        sub.add_argument(
            "--cfg", choices=["job"], help="print the composed, checked configuration and stop"
        )
        sub.add_argument(
            "--config-dir",
            metavar="DIR",
            help="a folder with your own recipe/NAME.yaml and the like",
        )
        sub.add_argument(
            "-m", "--multirun", action="store_true", help="a run for each combination of key=a,b,c"
        )
        if verb == "rope":
            sub.add_argument(
                "--json", action="store_true", help="print the content of rope.json alone"
            )
            sub.add_argument(
                "--compare", metavar="METHODS", help="other methods beside it, e.g. pi,ntk,llama3"
            )
        if verb == "data":
            printed = sub.add_mutually_exclusive_group()
            printed.add_argument("--json", action="store_true", help="print the ledger alone")
            printed.add_argument(
                "--show",
                type=count,
                metavar="N",
                help="print N sample sequences of the plan to read",
            )
            sub.add_argument(
                "--export",
                metavar="FOLDER",
                help="also write the sequences as parquet, for TRL and axolotl",
            )
            parts = sub.add_mutually_exclusive_group()
            parts.add_argument(
                "--shard",
                metavar="I/N",
                help="make only shards I, I+N, ... of the token stores (from 0)",
            )
            parts.add_argument(
                "--merge",
                action="store_true",
                help="go on from shards that are all made; make none",
            )
    return top


def count(word: str) -> int:
    """A whole number above 0, for a flag."""
    if not word.isdecimal() or not int(word):
        raise argparse.ArgumentTypeError(f"{word} is not a whole number above 0")
    return int(word)


def sweep_overrides(arguments: argparse.Namespace) -> list[list[str]]:
    """Overrides of each run: one, or every combination of a sweep as Hydra's own sweeper splits them."""
    from ropewalk.launch.config.compose import config_dir_override, sweep

    given = list(arguments.overrides)
    if arguments.config_dir:
        given.append(config_dir_override(arguments.config_dir))
    return sweep(given) if arguments.multirun else [given]


def configs(arguments: argparse.Namespace) -> list[tuple[list[str], Config]]:
    """Every run's settings, checked before the first run starts: a bad last combination costs no night.

    Raises: ConfigError with the problems of all, each line once.
    """
    from ropewalk.launch.config import compose

    found: list[tuple[list[str], Config]] = []
    wrong: dict[str, None] = {}
    for overrides in sweep_overrides(arguments):
        try:
            found.append((overrides, compose.compose(overrides)))
        except ConfigError as error:
            wrong |= dict.fromkeys(str(error).splitlines())
    if wrong:
        raise ConfigError("\n".join(wrong))
    return found


def run_verb(arguments: argparse.Namespace, overrides: Sequence[str], config: Config) -> None:
    """One run of one verb."""
    if arguments.cfg:
        print(to_yaml(config), end="")
        return
    if getattr(arguments, "shard", None) is not None:
        make_task(config, arguments.shard)
        return
    as_json = getattr(arguments, "json", False)
    with redirect_stdout(sys.stderr) if as_json else nullcontext():  # stdout holds the JSON alone
        run = run_stages(arguments, overrides, config)
    if arguments.verb == "rope" and not as_json:
        show_rope(run, (arguments.compare or "").split(",") if arguments.compare else [])
    if arguments.verb == "data" and arguments.show:
        show_samples(run, arguments.show)
    print_outputs(arguments.verb, run.folder, as_json)


def make_task(config: Config, word: str) -> None:
    """`--shard I/N`; what is no task is refused before anything is loaded. Raises: ConfigError, DataError."""
    task = shards.parse_task(word)
    load_libraries()
    from ropewalk.launch.pipeline.stages import make_shards

    print(make_shards(config, *task))


def run_stages(arguments: argparse.Namespace, overrides: Sequence[str], config: Config) -> "Run":
    """The verb's stages, and the sequences for other programs where they are asked for. Raises: RopewalkError."""
    load_libraries()
    from ropewalk.launch.pipeline.stages import execute, refuse_unfit_shards

    if getattr(arguments, "merge", False):
        refuse_unfit_shards(config)
    if target := getattr(arguments, "export", None):
        from ropewalk.data import export
        from ropewalk.data.dataset import DataArtifacts
        from ropewalk.launch.config.phases import chain

        export.target(target)
        data = chain(config)[-1].data
        export.refuse(data.document_mask, data.positions, data.pose.target_length)
    last = "report" if arguments.verb == "run" else arguments.verb
    run = execute(config, last, command(arguments.verb, overrides))
    if target:
        print(export.write(DataArtifacts.of(run.folder, run.cache), Path(target))[1])
        print(f"wrote {target}")
    return run


def command(verb: str, overrides: Sequence[str]) -> str:
    """What was typed, for the report; a folder of the user's is left out."""
    words = [
        re.sub(r"=(~|/|file:).*", "=PATH", word)
        for word in overrides
        if not word.startswith("hydra.")
    ]
    return shlex.join(["ropewalk", verb, *words])


@cache  # a sweep imports once
def load_libraries() -> None:
    """Libraries speak only when something is wrong; the CPU engine is chosen, not guessed."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    with gc_paused_imports():
        import torch
        import transformers

        import ropewalk.train.model  # noqa: F401  every verb looks at the base
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    transformers.utils.logging.disable_progress_bar()


if __name__ == "__main__":
    main()

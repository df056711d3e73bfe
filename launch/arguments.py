"""The verbs of `ropewalk`, their flags and their help."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

VERBS = {
    "run": "every stage, skipping what is done",
    "rope": "the rope plan: what the scaling method does to each dimension",
    "data": "documents -> tokens -> plan, with the ledger",
    "train": "the stages up to the training",
    "eval": "the stages up to the measurements",
    "report": "the stages up to the report",
    "calibrate": "search the ramp and temperature for this model, on held-out long text, "
    "without training",
    "check": "the self-test: this machine, its ranks and their numbers, before GPUs are spent",
    "export": "hand the trained model to servers: both key styles, GGUF, flags, and what each "
    "engine reads",
}
PLAN_HELP = "whether a training fits its GPUs, how long it takes, and what would make it fit"
SETTINGS_HELP = "list what may be set: type, default and meaning, of settings with WORD in them"
ENV_HELP = "a report of this machine to paste into a bug report; without keys and passwords"
RECIPES_HELP = "the field's recipes with their cost; with NAME its card: origins, departures"
RUNS_HELP = "what stands in a folder of runs: state, step, loss, checkpoint, what to type next"
REPRODUCE_HELP = (
    "run again what a manifest records: bit-identical, equal within the seed spread, or "
    "different and where"
)
PACK_HELP = "a run's recipe, package lock, manifest and results in one archive, for reproduce"
COMPARE_HELP = "several runs in one table and one page: differences with intervals, what differed"
OPERANDS = {"settings": "WORD", "runs": "FOLDER", "recipes": "NAME", "pack": "RUN"}
EXAMPLES = """\
ropewalk settings [WORD] lists what may be set, ropewalk runs [FOLDER] what stands where,
ropewalk env what a bug report needs.

settings: key=value, as Hydra takes them. Groups: recipe=NAME (demo, smollm2, base, custom),
rope=METHOD (none, pi, ntk, dynamic, ntk_by_parts, yarn, llama3, longrope, abf, table),
mixture=PRESET (fu, ultralong, olmo3, prolong_64k, prolong_512k, uniform),
suite=SIZE (smoke, progress, claim, publish), what eval measures,
launch=KIND (local, torchrun, slurm, kubernetes, external), who starts it on its machines.

examples:
  ropewalk run recipe=demo
  ropewalk run model.path=./my-model rope.factor=4 data.seq_len=32768 \\
      data.sources.books.path=./books train.steps=200 train.optimizer.lr=2e-5 \\
      train.global_batch_tokens=1048576 name=my-run
  ropewalk run recipe=demo rope=pi name=demo-pi          another method, the same data
  ropewalk run -m recipe=demo rope=pi,ntk,yarn           a sweep, one run a method
  ropewalk run recipe=demo sweep=methods sweep.pool=2    seven methods, three seeds, two at once
  ropewalk data recipe=demo --show 3                     the ledger, and three sequences to read
  ropewalk rope recipe=demo --compare pi,llama3,abf      what each method does to each dimension
  ropewalk calibrate recipe=demo                         measure the ramp for this model; then
  ropewalk run recipe=demo name=mine rope=table rope.path=runs/demo/calibration/rope.json
  ropewalk data recipe=demo --shard 0/4                  a quarter of the tokenising; 1/4, 2/4 and
                                                         3/4 on other machines, then
  ropewalk data recipe=demo --merge                      their shards in one store, and the plan
  ropewalk eval recipe=demo suite=smoke --dry-run        what an evaluation would cost
  ropewalk eval eval.models.a.path=./a eval.models.b.path=org/b data.sources.books.path=./books
                                                         any models side by side, no training
  ropewalk export recipe=demo                            for servers: keys, GGUF, flags, warnings
  ropewalk compare runs/demo runs/demo-pi                which is better, where, and by how much
  ropewalk check recipe=demo train.launcher.ranks_per_node=2 train.sp_size=2
                                                         does it train as one process would?
  ropewalk plan recipe=base model.path=./llama-8b data.seq_len=131072 train.sp_size=8 \\
      --hardware h100 --gpus 8                           will it fit, how long, what would
  ropewalk run recipe=demo --cfg job                     show the whole configuration, run nothing
  ropewalk run recipe=demo --dry-run                     check settings, model, sources and disks,
                                                         run nothing

exit codes: 0 done, 1 failed, 2 configuration or data refused, 3 a proof said no, 75 stopped in
good order (run again to resume)
"""


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse flags and settings in any order. Exits with 2 for wrong usage."""
    top = parser()
    words = list(sys.argv[1:] if argv is None else argv)
    end = words.index("--") if "--" in words else len(words)
    arguments, rest = top.parse_known_args(words[:end])
    if flags := [word for word in rest if word.startswith("-")]:
        top.error(f"unrecognized arguments: {' '.join(flags)}")
    if rest and (
        operand := {"settings": "WORD", "runs": "FOLDER", "recipes": "NAME", "pack": "RUN"}.get(
            arguments.verb
        )
    ):
        top.error(f"{arguments.verb} takes one {operand}: not allowed with {' '.join(rest)}")
    if arguments.verb == "compare":  # runs behind a flag
        arguments.runs += rest
    else:
        arguments.overrides += rest
    if words[end + 1 :]:
        if arguments.verb not in VERBS:
            top.error(f"{arguments.verb} starts no launcher: not allowed with -- WORDS")
        if mixed := [word for word in words[end + 1 :] if {'"', "'"} <= set(word)]:
            top.error(
                f"a word after -- has quotes of both kinds, which no setting holds: {mixed[0]}"
            )
        arguments.overrides.append(f"launch.arguments=[{','.join(map(_quoted, words[end + 1 :]))}]")
    if arguments.multirun and getattr(arguments, "export", None):
        top.error("--export goes with one run, not with --multirun")
    if getattr(arguments, "shard", None) is not None:
        idle = [f"--{name}" for name in ("export", "json", "show") if getattr(arguments, name)]
        if idle:
            top.error(f"--shard makes shards only, and no plan: not allowed with {', '.join(idle)}")
    return arguments


def parser() -> argparse.ArgumentParser:
    """The parser of all verbs."""
    formatter = argparse.RawDescriptionHelpFormatter
    kwargs: dict[str, Any] = {"epilog": EXAMPLES, "formatter_class": formatter}
    description = "Extend a model's context with rotary positions, and prove each stage."
    top = argparse.ArgumentParser(prog="ropewalk", description=description, **kwargs)
    verbs = top.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb, text in VERBS.items():
        sub = verbs.add_parser(verb, help=text, description=f"{verb}: {text}.", **kwargs)
        _add_common(sub)
        if verb == "rope":
            _add_rope(sub)
        if verb == "data":
            _add_data(sub)
        if verb == "check":
            sub.add_argument("--json", action="store_true", help="print the lines as JSON alone")
    description = f"plan: {PLAN_HELP}."
    _add_plan(verbs.add_parser("plan", help=PLAN_HELP, description=description, **kwargs))
    description = f"settings: {SETTINGS_HELP}."
    _add_settings(verbs.add_parser("settings", help=SETTINGS_HELP, description=description))
    _add_runs(verbs.add_parser("runs", help=RUNS_HELP, description=f"runs: {RUNS_HELP}."))
    _add_recipes(verbs.add_parser("recipes", help=RECIPES_HELP, description=f"{RECIPES_HELP}."))
    _add_env(verbs.add_parser("env", help=ENV_HELP, description=f"env: {ENV_HELP}."))
    description = f"reproduce: {REPRODUCE_HELP}."
    _add_reproduce(verbs.add_parser("reproduce", help=REPRODUCE_HELP, description=description))
    _add_pack(verbs.add_parser("pack", help=PACK_HELP, description=f"pack: {PACK_HELP}."))
    description = f"compare: {COMPARE_HELP}."
    _add_compare(verbs.add_parser("compare", help=COMPARE_HELP, description=description))
    return top


def _quoted(word: str) -> str:
    """As an item of a list in a setting, which is taken to the letter."""
    quote = "'" if '"' in word else '"'
    return f"{quote}{word}{quote}"


def _add_common(sub: argparse.ArgumentParser) -> None:
    add = sub.add_argument
    add("overrides", nargs="*", metavar="key=value", help="settings")
    add("--cfg", choices=["job"], help="print the composed, checked configuration and stop")
    add("--dry-run", action="store_true", help="check all that can be checked first, and stop")
    add("--config-dir", metavar="DIR", help="a folder with your own recipe/NAME.yaml and the like")
    add("-m", "--multirun", action="store_true", help="a run for each combination of key=a,b,c")


def _add_rope(sub: argparse.ArgumentParser) -> None:
    add = sub.add_argument
    add("--json", action="store_true", help="print the content of rope.json alone")
    add("--compare", metavar="METHODS", help="other methods beside it, e.g. pi,ntk,llama3")


def _add_data(sub: argparse.ArgumentParser) -> None:
    printed = sub.add_mutually_exclusive_group()
    printed.add_argument("--json", action="store_true", help="print the ledger alone")
    samples = "print N sample sequences of the plan"
    printed.add_argument("--show", type=positive_int, metavar="N", help=samples)
    parquet = "also write the sequences as parquet, for TRL and axolotl"
    sub.add_argument("--export", metavar="FOLDER", help=parquet)
    add = sub.add_mutually_exclusive_group().add_argument
    add("--shard", metavar="I/N", help="make only shards I, I+N, ... of the token stores (from 0)")
    add("--merge", action="store_true", help="go on from shards that are all made; make none")


def _add_plan(sub: argparse.ArgumentParser) -> None:
    sub.set_defaults(multirun=False)
    add = sub.add_argument
    add("overrides", nargs="*", metavar="key=value", help="settings")
    add("--cfg", choices=["job"], help="print the composed, checked configuration and stop")
    add("--config-dir", metavar="DIR", help="a folder with your own recipe/NAME.yaml and the like")
    add("--hardware", metavar="NAME", required=True, help="h100, h200, ..., or a file of your own")
    add("--gpus", type=positive_ints, metavar="N,...", help="how many; several: a table")
    lengths = "a table over these lengths of a sequence, in tokens"
    add("--for", dest="lengths", type=positive_ints, metavar="LENGTHS", help=lengths)
    add("--json", action="store_true", help="print the plan as JSON alone")
    price = "of one GPU-hour, or gpuhunt: the cheapest offer on demand (US$, reads the network)"
    add("--price", metavar="PRICE", help=price)
    add("--page", metavar="FILE", help="also write a page with the memory of a step over time")
    add("--no-search", action="store_true", help="look for no changes where it does not fit")


def _add_reproduce(sub: argparse.ArgumentParser) -> None:
    sub.set_defaults(multirun=False)
    add = sub.add_argument
    add("manifest", metavar="MANIFEST", help="a run's folder, its manifest.json, or a pack")
    folders = "where folders lie here; name, seed; another setting is another experiment"
    add("overrides", nargs="*", metavar="key=value", help=folders)
    runs = "runs that differ in the seed alone, or a folder of such: the spread"
    add("--spread", action="append", metavar="RUN,...", help=runs)
    more = "how many more seeds to run for the spread, where the rerun is not bit-identical"
    add("--seeds", type=positive_int, metavar="K", help=more)
    add("--json", action="store_true", help="print the answer as JSON alone")
    add("--dry-run", action="store_true", help="check manifest, settings and inputs, and stop")


def _add_pack(sub: argparse.ArgumentParser) -> None:
    sub.set_defaults(overrides=[], multirun=False)
    sub.add_argument("run", metavar="RUN", help="the run's folder")
    sub.add_argument("--output", metavar="FILE", help="NAME.tar, where it is not given")
    sub.add_argument("--weights", action="store_true", help="also the trained model")


def _add_settings(sub: argparse.ArgumentParser) -> None:
    sub.set_defaults(overrides=[], multirun=False)
    sub.add_argument("word", nargs="?", default="", metavar="WORD", help="part of a key or meaning")
    form = sub.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print a list with an object a setting")
    form.add_argument("--markdown", action="store_true", help="print docs/settings.md")


def _add_env(sub: argparse.ArgumentParser) -> None:
    sub.set_defaults(multirun=False)
    folders = "cache_dir=DIR and runs_dir=DIR, where they are not the defaults"
    sub.add_argument("overrides", nargs="*", metavar="key=value", help=folders)
    sub.add_argument("--probe", action="store_true", help="import torch, and ask it too")
    sub.add_argument("--json", action="store_true", help="print a list with an object a fact")


def _add_recipes(sub: argparse.ArgumentParser) -> None:
    sub.set_defaults(overrides=[], multirun=False)
    sub.add_argument("name", nargs="?", default="", metavar="NAME", help="one recipe")
    sub.add_argument("--json", action="store_true", help="print a list with an object a recipe")
    sub.add_argument("--twin", metavar="FOLDER", help="write a small copy of NAME to run here")


def _add_runs(sub: argparse.ArgumentParser) -> None:
    sub.set_defaults(overrides=[], multirun=False)
    sub.add_argument("folder", nargs="?", default="", metavar="FOLDER", help="runs_dir (runs)")
    sub.add_argument("--json", action="store_true", help="print a list with an object a run")


def _add_compare(sub: argparse.ArgumentParser) -> None:
    sub.set_defaults(overrides=[], multirun=False)
    runs = "folders of runs; RUN:COLUMN for another model of its results than the trained one"
    sub.add_argument("runs", nargs="+", metavar="RUN", help=runs)
    baseline = "the model that the others are compared with (the first one)"
    sub.add_argument("--baseline", default="", metavar="NAME", help=baseline)
    sub.add_argument("--output", default="", metavar="FOLDER", help="of the page (comparison)")
    sub.add_argument("--json", action="store_true", help="print a list with an object a model")


def positive_int(text: str) -> int:
    """An integer above 0, for a flag."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text} is not a whole number above 0")
    return int(text)


def positive_ints(text: str) -> list[int]:
    """Whole numbers above 0 between commas, for a flag."""
    return [positive_int(part) for part in text.split(",")]

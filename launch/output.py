"""What a verb prints at its end: plans, samples, gates, and the files that it wrote."""

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ropewalk.launch.pipeline.run import Run

Gate = dict[str, Any]
LABELS = {"pass": "pass     ", "fail": "FAIL     ", "undecided": "undecided"}
REPORT = "report/index.html"
OUTPUTS = {
    "rope": "rope.json",
    "data": "data/ledger.json",
    "train": "train/model",
    "eval": "eval/results.json",
    "calibrate": "calibration/rope.json",
    "export": "export/SERVING.md",
}
"""Verb -> its main output in the run folder; the other verbs write the report."""


def show_settings(word: str, as_json: bool, as_markdown: bool) -> None:
    """Print the settings with `word` in their key or doc. Raises: ConfigError for no such word."""
    from ropewalk.conf import settings

    rows = settings.matching(word)
    if as_json:
        print(json.dumps(rows, indent=1), flush=True)
    elif as_markdown:
        print(settings.as_markdown(rows), end="", flush=True)
    else:
        print(settings.as_text(rows), flush=True)


def show_runs(folder: str, as_json: bool) -> None:
    """Print the runs of a folder. Raises: ConfigError for no such folder."""
    from ropewalk.launch.runs import listing

    rows = listing.rows(folder)
    _print(json.dumps(rows, indent=1) if as_json else listing.as_text(folder, rows))


def show_environment(words: Sequence[str], probe: bool, as_json: bool) -> None:
    """Print the report of this machine. Raises: ConfigError for words that it does not take."""
    from ropewalk.launch.environment import report

    rows = report.rows(words, probe)
    _print(json.dumps(rows, indent=1) if as_json else report.as_text(rows))


def _print(text: str) -> None:
    """Names of files and devices are printed in any locale."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding), flush=True)


def show_rope(run: "Run", methods: Sequence[str]) -> None:
    """Print the rope plan, with the plans of other `methods` beside it, and draw rope.svg.

    A picture of other methods is not drawn over that of a training that stands.
    """
    from ropewalk.eval.report.figures.rope import draw
    from ropewalk.launch.pipeline.standing import look_folder
    from ropewalk.train.rope import stage, table
    from ropewalk.train.rope.plan import RopePlan

    plan = RopePlan.read(run.output / "rope.json")
    others = stage.comparison_plans(run.config, run.base, methods) if methods else []
    print(table.comparison_table([plan, *others]) if others else table.summary(plan))
    folder = look_folder(run) if others and run.in_place else run.output
    folder.mkdir(parents=True, exist_ok=True)
    draw([p.json() for p in (plan, *others)], folder / "rope.svg")
    print(f"wrote {folder / 'rope.svg'}")


def show_samples(run: "Run", number: int) -> None:
    """Print sample sequences as the trainer receives them."""
    from ropewalk.data.dataset import DataArtifacts
    from ropewalk.data.ledger.samples import pages

    data, trusted = DataArtifacts.of(run.output, run.cache), run.config.model.trust_remote_code
    print(pages(data, number, run.config.seed, trusted))


def print_outputs(verb: str, folder: Path, as_json: bool, words: Sequence[str] = ()) -> None:
    """Print the verb's output: its content alone for `--json`, else a summary and the paths.

    `words`: what was typed after the verb.
    """
    target = folder / OUTPUTS.get(verb, REPORT)
    if as_json:
        print(target.read_text(), end="")
        return
    if verb == "data":
        from ropewalk.data.ledger.terminal import summary as ledger_summary

        print(ledger_summary(json.loads(target.read_text())))
    elif verb in ("run", "report", "eval"):
        results = read_results(folder)
        for gate in results["gates"]:
            print(gate_line(gate))
        if reason := results.get("not_judged"):
            print(f"  no gates: {reason}")
    print(f"wrote {target}")
    if verb == "train" and (folder / "train" / "adapter").is_dir():
        print(f"wrote {folder / 'train' / 'adapter'}")
    if verb in ("train", "eval"):
        print_page(folder, words)


def print_page(folder: Path, words: Sequence[str]) -> None:
    """What the run's page shows, where there is one, and how to write it anew."""
    from ropewalk.launch.runs.page import former_stages, is_former

    page = folder / REPORT
    if reason := is_former(former_stages(folder)):
        print(f"{page}: {reason}; write it anew: {shlex.join(['ropewalk', 'report', *words])}")
    elif page.is_file():
        print(f"the page: {page}")


def read_results(folder: Path) -> dict[str, Any]:
    """The content of eval/results.json."""
    results: dict[str, Any] = json.loads((folder / "eval" / "results.json").read_text())
    return results


def gate_line(gate: Gate) -> str:
    """`  pass  NAME: VALUE [LOW, HIGH] (RULE)`, and of an undecided one the n that would decide.

    FAIL in capitals is one that decides.
    """
    label = LABELS[gate["verdict"]]
    label = label if gate["decides"] else label.lower()
    line = f"  {label}  {gate['name']}: {gate['text']} ({gate['rule']})"
    return f"{line}; {needed(gate)}" if gate["verdict"] == "undecided" else line


def needed(gate: Gate) -> str:
    """`n that would decide: 41 (document; 16 measured)`."""
    units = "none, the value is the tolerance"
    if gate["needed_n"] is not None:
        units = f"{gate['needed_n']:,}"
    return f"n that would decide: {units} ({gate['unit']}; {gate['n']:,} measured)"


def refused_gates(results: Mapping[str, Any], strict: bool) -> list[str]:
    """A line for each gate that decides and failed; where `strict`, also for one that is undecided,
    and for an evaluation in which none decides."""
    lines, way_out = list[str](), "choose another model"
    if results.get("judged", "extended") == "extended":
        way_out = "train on more text like the base's or choose another rope"
    if strict and not any(gate["decides"] for gate in results["gates"]):
        reason = results.get("not_judged") or "the tasks' gates are only shown"
        lines.append(f"eval.strict is true; a gate must decide, and none does: {reason}; unset it")
    for gate in results["gates"]:
        head = f"{gate['name']} is {gate['text']}; {gate['rule']}"
        if gate["decides"] and gate["verdict"] == "fail":
            lines.append(
                f"{head}; {way_out}; a question that is not in eval.gates.deciding is only shown "
                f"(this is {gate['question']})"
            )
        elif gate["decides"] and gate["verdict"] == "undecided" and strict:
            lines.append(
                f"{head}, which is undecided, and eval.strict wants a decision; {needed(gate)}"
            )
    return lines

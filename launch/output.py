""""""

import json
from collections.abc import Sequence
from pathlib import Path

from ropewalk.launch.pipeline.run import Run


def show_rope(run: Run, methods: Sequence[str]) -> None:
    """The plan in lines, beside other methods where asked, and as a picture."""
    from ropewalk.eval.report.figures.rope import draw
    from ropewalk.train.base import locate
    from ropewalk.train.rope import stage, table
    from ropewalk.train.rope.plan import RopePlan

    plan = RopePlan.read(run.folder / "rope.json")
    beside = (
        stage.comparison_plans(run.config, locate(run.config.model, run.cache), methods)
        if methods
        else []
    )
    print(table.comparison_table([plan, *beside]) if beside else table.summary(plan))
    draw([p.json() for p in (plan, *beside)], run.folder / "rope.svg")
    print(f"wrote {run.folder / 'rope.svg'}")


def show_samples(run: Run, number: int) -> None:
    """Sample sequences, as the trainer is given them."""
    from ropewalk.data.dataset import DataArtifacts
    from ropewalk.data.ledger.samples import pages

    print(pages(DataArtifacts.of(run.folder, run.cache), number, run.config.seed))


def print_outputs(verb: str, folder: Path, as_json: bool) -> None:
    """What was written, and for `rope` and `data` what it says."""
    shown = {
        "rope": "rope.json",
        "data": "data/ledger.json",
        "train": "train/model",
        "eval": "eval/results.json",
        "calibrate": "calibration/rope.json",
        "export": "export/SERVING.md",
    }
    target = folder / shown.get(verb, "report/index.html")
    if as_json:
        print(target.read_text(), end="")
        return
    if verb == "data":
        from ropewalk.data.ledger.terminal import summary as ledger_summary

        print(ledger_summary(json.loads(target.read_text())))
    elif verb in ("run", "report", "eval"):
        print_verdicts(folder)
    print(f"wrote {target}")
    if verb == "train" and (folder / "train" / "adapter").is_dir():
        print(f"wrote {folder / 'train' / 'adapter'}")


def print_verdicts(folder: Path) -> None:
    for verdict in json.loads((folder / "eval" / "results.json").read_text())["verdicts"]:
        print(
            f"  {'holds' if verdict['holds'] else 'FAILS'}  {verdict['name']}: {verdict['value']} ({verdict['rule']})"
        )

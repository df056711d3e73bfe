"""The stages of a run in order: what each is given, which of them a verb needs, and the run's own manifest."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ropewalk.conf import phases
from ropewalk.conf.artifacts import manifest
from ropewalk.conf.artifacts.locks import lock_or_refuse
from ropewalk.conf.artifacts.manifest import Manifest, fingerprint, read_json, run_stage
from ropewalk.conf.check import to_yaml
from ropewalk.conf.errors import ConfigError
from ropewalk.conf.schema import Config, content
from ropewalk.launch.config.phases import chain
from ropewalk.launch.pipeline.record import write_manifest
from ropewalk.launch.pipeline.run import Run
from ropewalk.train.base import base_config, locate
from ropewalk.train.preflight import refuse_unfit_ranks

ORDER = ("rope", "data", "train", "eval", "report")
BESIDE = {
    "calibrate": ("rope", "data", "calibrate", "report"),
    "export": ("rope", "data", "train", "export"),
}  # verb -> its stages
EACH = (
    "rope",
    "data",
    "train",
)  # what every phase has; the rest is of the last one, from the base that was named
SHOWN = ("train", "eval", "calibration")  # folders whose results the page shows


def execute(config: Config, last: str, command: str = "") -> Run:
    """Run every stage up to `last`, skipping what is done.

    Raises: ConfigError, DataError, ProofError, Stopped; each tells itself in lines.
    """
    runs = _runs(config, command)
    last_one = runs[-1]
    last_one.folder.mkdir(parents=True, exist_ok=True)
    last_one.cache.mkdir(parents=True, exist_ok=True)
    if last not in ("rope", "data"):
        for run in runs:
            _refuse_what_cannot_be_trained(run)
    with lock_or_refuse(last_one.folder):
        for run in runs:
            run.folder.mkdir(parents=True, exist_ok=True)
            (run.folder / "config.yaml").write_text(to_yaml(run.config))
        for stage in BESIDE.get(last) or ORDER[: ORDER.index(last) + 1]:
            for run in runs if stage in EACH else runs[-1:]:
                if run.config.phase and stage == "train":
                    print(f"{phases.title(run.config)}training", flush=True)
                run.done[stage], said = _STAGES[stage](run)
                print(phases.title(run.config) + said)
                write_manifest(run)
    return last_one


def _runs(config: Config, command: str) -> list[Run]:
    """One for each phase; the last has the run's own folder."""
    runs: list[Run] = []
    for one in chain(config):
        runs.append(Run(one, {}, command, runs[-1] if runs else None))
    return runs


def _refuse_what_cannot_be_trained(run: Run) -> None:
    """Before a token is written. Raises: ConfigError."""
    from ropewalk.train import attention
    from ropewalk.train.adapters import preflight

    base = _base(run)
    config = base_config(base)
    attention.refuse_unsupported(config, base.name, run.config.train.s2_group)
    if (
        not base.trust_remote_code
    ):  # its code may not be in the registry: the ranks ask the model itself
        preflight.refuse_unmatched(config, run.config.train)
    if warning := refuse_unfit_ranks(run.config, config):
        print(f"warning: {warning}")


def _base(run: Run) -> Any:

    return locate(run.config.model, run.cache)


def _rope(run: Run) -> tuple[Manifest, str]:
    from ropewalk.train.rope import stage

    done = stage.run(run.config, _base(run), run.folder / "rope.json")
    _refuse_smaller_window(run, done[0])
    return done


def _refuse_smaller_window(run: Run, rope: Manifest) -> None:
    """Raises: ConfigError where a phase reads less than the one before it."""
    if run.before is None:
        return
    window, least = (r.facts["max_position_embeddings"] for r in (rope, run.before.done["rope"]))
    if window < least:
        raise ConfigError(
            f"phases[{run.config.phase - 1}].rope.factor is {run.config.rope.factor}; its window of {window} tokens must be at least that of the "
            f"phase before, {least}, for it starts from that model; the factor counts from the original window: raise it"
        )


def _data(run: Run) -> tuple[Manifest, str]:
    from ropewalk.data import stage

    return stage.run(run.config, data_inputs(run.config, run.before), run.folder / "data")


def data_inputs(config: Config, before: Run | None = None) -> Any:
    """What the data stage is given: where the base's tokenizer is. One made from the sources is made of the first phase's, for all:
    of others it would be another, and the model would read other words. Raises: ConfigError."""
    from ropewalk.data import stage

    base = _base(Run(config, {}))
    if base.path is None and before is not None:
        return stage.Inputs(str(before.folder / "data" / "tokenizer"))
    return stage.Inputs(base.path, base.revision, base.trust_remote_code)


def make_shards(config: Config, task: int, tasks: int) -> str:
    """`ropewalk data --shard`: no run's folder is touched, so any number of tasks work side by side. Raises: ConfigError, DataError."""
    from ropewalk.data import stage
    from ropewalk.data.tokens.shards import folder_name

    made = ", ".join(
        f"{source}/{folder_name(n)}"
        for source, n in stage.make_shards(config, data_inputs(config), task, tasks)
    )
    return f"shard {task}/{tasks}: {made or 'nothing to do'}"


def refuse_unfit_shards(config: Config) -> None:
    """Before `ropewalk data --merge`. Raises: ConfigError with the shards that are missing, DataError for one that is damaged."""
    from ropewalk.data import stage

    inputs = data_inputs(config)
    if missing := stage.missing_shards(config, inputs):
        some = ", ".join(missing[:20]) + (
            f" and {len(missing) - 20} more" if len(missing) > 20 else ""
        )
        raise ConfigError(
            f"--merge lacks shards {some}; all must be there; make them with ropewalk data --shard I/N, or all that is missing "
            "with ropewalk data"
        )
    stage.prove_shards(config, inputs)


def _train(run: Run) -> tuple[Manifest, str]:
    from ropewalk.train import stage

    inputs = {
        **run.marks("rope", "data"),
        "base": _base(run).identity,
        **_before(run),
        **phases.cache_key(run.config),
    }
    return stage.run(run.config, inputs, run.folder / "train")


def _before(run: Run) -> dict[str, str]:
    """What a phase starts from, beside the base that was named."""
    return {} if run.before is None else {"before": run.before.done["train"].fingerprint}


def _eval(run: Run) -> tuple[Manifest, str]:
    from ropewalk.eval import stage

    return stage.run(
        run.config, _base(run), run.marks("rope", "data", "train"), run.folder / "eval"
    )


def _calibrate(run: Run) -> tuple[Manifest, str]:
    from ropewalk.eval.calibrate import stage

    return stage.run(run.config, _base(run), run.marks("data"), run.folder / "calibration")


def _export(run: Run) -> tuple[Manifest, str]:
    from ropewalk.train.export import stage

    return stage.run(run.config, run.marks("rope", "train"), run.folder / "export")


def _report(run: Run) -> tuple[Manifest, str]:
    from ropewalk.eval.report import page as report_page

    there = _in_force(run)
    decides = {
        "inputs": run.marks("rope", "data")
        | {name: found.fingerprint for name, found in there.items()},
        "page": fingerprint(_sources_of_page()),
        "findings": read_json(run.folder / "rope.json")["findings"],
        "ledger": read_json(
            run.folder / "data" / "ledger.json"
        ),  # renewed where the data stage is skipped
    }

    def work(temporary: Path) -> dict[str, Any]:
        page = report_page.render(run.folder, [n for n in SHOWN if n not in there])
        (temporary / "index.html").write_text(page, encoding="utf-8")
        return {}

    return run_stage("report", decides, run.folder / "report", work)


def _in_force(run: Run) -> dict[str, Manifest]:
    """The finished stages that were made of what this run is now: a page shows nothing else. Eval's is of the train there is."""
    now, there = _now(run), dict[str, Manifest]()
    inputs: dict[str, Any] = {**run.marks(*run.done), "base": now["base"], **_before_in_force(run)}
    for name in SHOWN:
        inputs["train"] = there["train"].fingerprint if "train" in there else None
        found = manifest.read(run.folder / name)
        if (
            found is not None
            and agrees(found.content, now)
            and agrees(found.content["inputs"], inputs)
        ):
            there[name] = found
    return there


def _before_in_force(run: Run) -> dict[str, Any]:
    """Where no phase was trained just now, the one before counts as its page would show it."""
    if run.before is None or "train" in run.before.done:
        return _before(run)
    found = _in_force(run.before).get("train")
    return {"before": found and found.fingerprint}


def _now(run: Run) -> dict[str, Any]:
    """What the contents of the stages on the page would say if they were made now. How long a search was is no matter: it says
    so itself, and what it found of this base, data and factor stands."""
    config, rope = run.config, read_json(run.folder / "rope.json")
    return {
        "base": _base(run).identity,
        "seed": config.seed,
        "seq_len": config.data.seq_len,
        **{name: content(getattr(config, name)) for name in ("train", "eval")},
        **{key: rope[key] for key in ("factor", "original_max_position_embeddings")},
    }


def agrees(made: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether what a stage was made of is the same as `now` in every key that both have. Pure."""
    return all(now[key] == value for key, value in made.items() if key in now)


def _sources_of_page() -> list[str]:
    """The report's code and template, so that a change of either renders the page again."""
    from ropewalk.eval.report import page as report_page

    folder = Path(report_page.__file__).parent
    return [p.read_text() for p in sorted([*folder.rglob("*.py"), *folder.glob("*.j2")])]


_STAGES: dict[str, Callable[[Run], tuple[Manifest, str]]] = {
    "rope": _rope,
    "data": _data,
    "train": _train,
    "eval": _eval,
    "report": _report,
    "calibrate": _calibrate,
    "export": _export,
}

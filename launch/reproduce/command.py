"""`ropewalk reproduce MANIFEST`: run again what a manifest records, and say whether it came out the
same."""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ropewalk.conf.artifacts.records import write_json
from ropewalk.conf.errors import ConfigError, ProofError
from ropewalk.conf.rules import content
from ropewalk.conf.schema import Config
from ropewalk.launch.reproduce import compare, evidence, inputs, rerun
from ropewalk.launch.reproduce.compare import Difference
from ropewalk.launch.reproduce.evidence import Evidence
from ropewalk.launch.reproduce.settings import dotted, leaves
from ropewalk.launch.reproduce.spread import FEWEST, Spread, spreads

SAME, EQUAL, DIFFERENT = "bit-identical", "equal within the seed spread", "different"
RESULT = "reproduction.json"


@dataclass
class Answer:
    """What a reproduction found."""

    answer: str
    first: Difference | None = None
    spreads: Sequence[Spread] = ()
    environment: Sequence[str] = ()
    notes: list[str] = field(default_factory=list)
    folder: Path | None = None

    def text(self) -> str:
        """The answer, its first difference, the size of the spread, and what else differs."""
        head = f"{self.answer}, first difference {self.first}" if self.is_different else self.answer
        lines = [head, *(f"  {spread}" for spread in self.spreads)]
        if self.first is not None and not self.is_different:
            lines.append(f"  not bit-identical: {self.first}")
        lines += [f"  {line}" for line in self.notes]
        lines += [f"  environment: {line}" for line in self.environment]
        return "\n".join(lines)

    @property
    def is_different(self) -> bool:
        return self.answer == DIFFERENT

    def json(self) -> dict[str, Any]:
        first = self.first and {"stage": self.first.stage, "text": self.first.text}
        return {
            "schema": 1,
            "answer": self.answer,
            "first_difference": first,
            "seed_spread": [spread.json() for spread in self.spreads],
            "environment": list(self.environment),
            "notes": self.notes,
        }


def run(arguments: argparse.Namespace) -> None:
    """Print the answer. Raises: ConfigError, DataError; ProofError where it is `different`."""
    known = evidence.read(arguments.manifest)
    words = rerun.words_of(arguments.overrides)
    others = list(seed_runs(arguments.spread or [], known))
    refuse_few(known, words, others, arguments.seeds or 0)
    with output_on_stderr() if arguments.json else nullcontext():
        if arguments.dry_run:
            print(check(known, words), flush=True)
            return
        answer = reproduce(known, words, others, arguments.seeds or 0)
    if arguments.json:
        print(json.dumps(answer.json(), indent=1), flush=True)
    elif not answer.is_different:
        print(answer.text(), flush=True)
    if answer.folder is not None and not arguments.json:
        print(f"wrote {answer.folder / RESULT}", flush=True)
    if answer.is_different:
        raise ProofError(answer.text())


@contextmanager
def output_on_stderr() -> Iterator[None]:
    """What this process and those that it starts print goes to standard error meanwhile."""
    sys.stdout.flush()
    stdout = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)


def refuse_few(
    known: Evidence, words: dict[str, Any], others: Sequence[Evidence], seeds: int
) -> None:
    """A rerun with another seed is not bit-identical: it needs a spread that it is no part of.

    Raises: ConfigError before anything runs.
    """
    seed = words.get("seed", known.record["seeds"]["seed"])
    if seed == known.record["seeds"]["seed"]:
        return
    if seed in (other.record["seeds"]["seed"] for other in others):
        raise ConfigError(
            f"seed is {seed}; the run that is judged must not be one of --spread; choose another"
        )
    if (number := 1 + len(others) + seeds) < FEWEST:
        raise ConfigError(
            f"seed is {seed}, another than the manifest's; the spread takes {FEWEST} runs with the "
            f"manifest's own, and there are {number}; give them with --spread RUN,..., or run more "
            f"with --seeds {FEWEST - number + seeds}"
        )


def check(known: Evidence, words: dict[str, Any]) -> str:
    """`--dry-run`: one line about what would run. Raises: ConfigError, DataError."""
    answer, config = prepared(known, words)
    if answer is not None:
        return answer.text()
    return (
        f"settings, base and documents are those of the manifest; it would run the stages up to "
        f"{rerun.verb_of(known)} in {Path(config.runs_dir) / config.name}"
    )


def reproduce(known: Evidence, words: dict[str, Any], others: list[Evidence], seeds: int) -> Answer:
    """`others`: runs that differ in the seed alone; `seeds`: how many more to run, if needed."""
    answer, config = prepared(known, words)
    if answer is not None:
        return answer
    made = rerun.run(known, config)
    answer = judged(known, made, config, others, seeds)
    answer.folder = Path(config.runs_dir).expanduser() / config.name
    write_json(answer.folder / RESULT, answer.json())
    return answer


def prepared(known: Evidence, words: dict[str, Any]) -> tuple[Answer | None, Config]:
    """The settings of the rerun, once nothing is left that is known to differ before it; or the
    answer where a setting does. Raises: ConfigError, DataError."""
    config = rerun.recorded(known, words)
    own = {key: value for key, value in words.items() if key not in rerun.OWN}
    new = rerun.changed(config, own, known)
    if difference := compare.of_settings(content(config), content(new)):
        note = "nothing was run: other settings make another experiment"
        return Answer(DIFFERENT, difference, notes=[note]), new
    for line in rerun.take_variables(known):
        print(line, flush=True)
    from ropewalk.launch.cli import load_libraries

    load_libraries()
    seed = "" if config.seed == new.seed else f"-seed{new.seed}"
    placed = rerun.placed(new, known, words, f"-reproduced{seed}")
    with tempfile.TemporaryDirectory() as cache:  # nothing is written before it is known to run
        rerun.refuse_other_inputs(known, replace(placed, cache_dir=cache))
    return None, placed


def judged(
    known: Evidence, made: Evidence, config: Config, others: list[Evidence], seeds: int
) -> Answer:
    """The answer about a rerun that is done. `config`: of the rerun."""
    same_seed = config.seed == known.record["seeds"]["seed"]
    first = compare.of_results(known, made)
    environment = compare.environments(known, made)
    if first is None:
        return Answer(SAME, environment=environment)
    used_seeds = {
        known.record["seeds"]["seed"],
        config.seed,
        *(o.record["seeds"]["seed"] for o in others),
    }
    others = [*others, *more_seeds(known, config, seeds, used_seeds)]
    runs = [e.record["values"] for e in (known, *others)]
    if len(runs) < FEWEST:
        note = (
            f"whether this is within the seed spread is not known: it takes {FEWEST} runs that "
            f"differ in the seed, and there are {len(runs)}; give them with --spread RUN,..., or "
            f"run more with --seeds {FEWEST - len(runs)}"
        )
        return Answer(DIFFERENT, first, environment=environment, notes=[note])
    seed_spreads = spreads(runs, made.record["values"])
    if not seed_spreads:
        raise ConfigError(
            "--spread has no value in common with the rerun; a spread is that of the losses; name "
            "runs with the same stages"
        )
    outside = next((spread for spread in seed_spreads if not spread.holds), None)
    if outside is None:
        return Answer(EQUAL, first, seed_spreads, environment)
    difference = first if same_seed else Difference("values", str(outside))
    return Answer(DIFFERENT, difference, seed_spreads, environment)


def more_seeds(
    known: Evidence, config: Config, count: int, used_seeds: set[int]
) -> Iterator[Evidence]:
    """Run the manifest's settings with `count` seeds that no run has yet."""
    free = (seed for seed in range(count + len(used_seeds)) if seed not in used_seeds)
    for _ in range(count):
        seed = next(free)
        print(f"seed {seed}: a run for the spread", flush=True)
        name = f"{known.record['name']}-reproduced-seed{seed}"
        yield rerun.run(known, replace(config, seed=seed, name=name))


def seed_runs(texts: Sequence[str], known: Evidence) -> Iterator[Evidence]:
    """The runs of `--spread`, each a run's folder, a manifest or a pack, or a folder of runs.

    Raises: ConfigError for a run that differs in more than the seed, or has a seed twice.
    """
    seeds = {known.record["seeds"]["seed"]}
    for text in (part for value in texts for part in value.split(",")):
        folder = Path(text).expanduser()
        runs = [folder]
        if folder.is_dir() and not (folder / "manifest.json").is_file():
            runs = sorted(path.parent for path in folder.glob("*/manifest.json"))
        for run in runs or [folder]:
            other = evidence.read(str(run))
            if other.record["digest"] == known.record["digest"] and len(runs) > 1:
                continue  # the manifest's own run among its sweep's
            _refuse_unfit(other, known, str(run), seeds)
            seeds.add(other.record["seeds"]["seed"])
            yield other


def _refuse_unfit(other: Evidence, known: Evidence, name: str, seeds: set[int]) -> None:
    mine, theirs = (_deciding(side) for side in (known, other))
    difference = compare.of_settings(mine, theirs)
    lines = [difference.text] if difference else []
    lines += inputs.changes(known.record["inputs"], other.record["inputs"])
    if lines:
        raise ConfigError(
            f"--spread has {name}; its runs must differ from the manifest's in the seed alone; "
            f"{lines[0]}: leave it out"
        )
    if (seed := other.record["seeds"]["seed"]) in seeds:
        raise ConfigError(
            f"--spread has {name} with seed {seed}; each run must have a seed of its own; leave it "
            "out"
        )


def _deciding(side: Evidence) -> Any:
    """The settings of a run that decide numbers, without where something lies."""
    record = side.record
    places = [dotted(k) for k, v in leaves(record["settings"]) if v and rerun.is_place(dotted(k))]
    words = dict.fromkeys([*record["left_out"], *places], "./left-out")
    return content(rerun.recorded(side, words))

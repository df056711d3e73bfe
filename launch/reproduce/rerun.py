"""The settings of a run that reproduces another, and the run itself."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ropewalk.conf import check, declared
from ropewalk.conf.artifacts.folders import RUNS_DIR
from ropewalk.conf.errors import ConfigError, DataError
from ropewalk.conf.schema import Config
from ropewalk.launch.config.hydra import HYDRA_ERRORS
from ropewalk.launch.config.overrides import Override, nested, typed
from ropewalk.launch.environment.shown import HIDDEN
from ropewalk.launch.pipeline.order import ORDER
from ropewalk.launch.reproduce import settings
from ropewalk.launch.reproduce.evidence import Evidence
from ropewalk.launch.reproduce.settings import LEFT_OUT, dotted, leaves

OWN = ("name", "runs_dir", "cache_dir")
"""Settings that a rerun has of its own, where none are given."""
CONFIG = "config.yaml"


def words_of(words: Sequence[str]) -> dict[str, Any]:
    """The values of `key=value` by key. `phases[0].KEY` sets a setting of a phase.

    Raises: ConfigError with a line a problem.
    """
    result, problems = {}, list[str]()
    for word in map(Override.of, words):
        if word.is_group:
            problems.append(
                f"{word.key} is {word.value}; a manifest has every setting, and no file is read; "
                "set a single setting, such as rope.factor=8"
            )
            continue
        phase, _, key = word.key.rpartition("].")
        inner = Override.of(f"{key}={word.value}") if phase else word
        value, lines = typed(inner)
        problems += lines
        result[word.key] = value
    if problems:
        raise ConfigError("\n".join(problems))
    return result


def recorded(evidence: Evidence, words: Mapping[str, Any]) -> Config:
    """The settings of the manifest's run, with the folders of `words` and of this machine.

    A folder that the manifest leaves out is read from the run's config.yaml, where that is beside
    it. Raises: ConfigError with a line for each folder that is not known.
    """
    record = evidence.record
    places = {dotted(key) for key, _ in leaves(record["settings"]) if is_place(dotted(key))}
    known = {key: words[key] for key in {*record["left_out"], *places} if key in words}
    known |= _folders(evidence, [key for key in record["left_out"] if key not in words])
    missing = [key for key in record["left_out"] if key not in known and key not in OWN]
    if missing:
        raise ConfigError(
            "\n".join(
                f"{key} is not in the manifest; it leaves the user's folders out; add {key}=FOLDER"
                for key in missing
            )
        )
    plain = settings.replaced(record["settings"], known | dict.fromkeys(OWN, "reproduced"))
    return _config(plain, evidence)


def is_place(key: str) -> bool:
    """Whether a setting says where something lies, which is known by its content."""
    return key.rpartition(".")[2] == "path"


def _folders(evidence: Evidence, keys: Sequence[str]) -> dict[str, Any]:
    """Values of config.yaml beside the manifest."""
    import yaml

    content = evidence.read(CONFIG)
    frozen = yaml.safe_load(content) if content is not None else {}
    values = {dotted(key): value for key, value in leaves(frozen)}
    return {key: values[key] for key in keys if values.get(key) not in (None, LEFT_OUT, HIDDEN)}


def _config(plain: Mapping[str, Any], evidence: Evidence) -> Config:
    from ropewalk.launch.config.phases import check_phases

    verb = verb_of(evidence)
    try:
        typed_values = check.typed_values(plain)
        checked = check_phases if typed_values.phases else check.check
        return checked(typed_values, verb)
    except (*HYDRA_ERRORS, LookupError, TypeError) as error:
        text = " ".join(str(error).split())
        raise ConfigError(
            f"the manifest's settings do not fit this version of ropewalk; {text}; use the version "
            f"that wrote it ({evidence.record['versions']['ropewalk']})"
        ) from error


def changed(config: Config, words: Mapping[str, Any], evidence: Evidence) -> Config:
    """`config` with the settings of `words`. Raises: ConfigError."""
    plain = settings.values(config)
    by_phase = {key: value for key, value in words.items() if key.startswith("phases[")}
    plain = settings.replaced(plain, by_phase)
    rest = [(key, value) for key, value in words.items() if key not in by_phase]
    for key, value in rest:
        if not declared.exists(key):
            raise ConfigError(declared.unknown(key))
        plain = _merged(plain, nested([(key, value)]))
    return _config(plain, evidence)


def _merged(plain: Any, new: Any) -> Any:
    if not (isinstance(plain, dict) and isinstance(new, dict)):
        return new
    return {**plain, **{key: _merged(plain.get(key), value) for key, value in new.items()}}


def placed(config: Config, evidence: Evidence, words: Mapping[str, Any], suffix: str) -> Config:
    """`config` with the folders of a rerun: beside the run where that lies here, and with a cache
    of its own, so that nothing that was computed before is read.

    Raises: ConfigError where its folder is that of the run itself.
    """
    beside = evidence.folder.parent if evidence.folder is not None else Path(RUNS_DIR)
    runs_dir = str(words.get("runs_dir", beside))
    name = str(words.get("name", f"{evidence.record['name']}{suffix}"))
    folder = Path(runs_dir).expanduser() / name
    if evidence.folder is not None and folder.resolve() == evidence.folder.resolve():
        raise ConfigError(
            f"name is {name}; a rerun must have a folder of its own, and this is the run itself; "
            "give another name"
        )
    cache = str(words.get("cache_dir", folder / "cache"))
    return replace(config, name=name, runs_dir=runs_dir, cache_dir=cache)


def verb_of(evidence: Evidence) -> str:
    """The verb whose stages the manifest has, as far as they compute something."""
    stages = evidence.record["results"]
    verb = next((stage for stage in reversed(ORDER) if stage in stages), "rope")
    return "run" if verb == "eval" and "report" in evidence.record["stages"] else verb


def take_variables(evidence: Evidence) -> list[str]:
    """Set the variables that change numbers as the manifest has them, before torch is loaded.

    Returns a line for each that was another.
    """
    from ropewalk.launch.reproduce import environment

    known = evidence.environment.get("variables", {})
    lines = []
    for name in sorted({*known, *environment.variables()}):
        value = known.get(name)
        if value in (LEFT_OUT, HIDDEN) or os.environ.get(name) == value:
            continue
        lines.append(f"{name} is {value or 'unset'}, as the manifest has it")
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value
    mesh = evidence.record["mesh"]
    if environment.threads(mesh["ranks_per_node"]) != mesh["threads_of_a_rank"]:
        os.environ["OMP_NUM_THREADS"] = mesh["threads_of_a_rank"]
        lines.append(f"OMP_NUM_THREADS is {mesh['threads_of_a_rank']}, the manifest's threads")
    return lines


def refuse_other_inputs(evidence: Evidence, config: Config) -> None:
    """The preflight, and the content of base, tokenizer and documents against the manifest's.

    Raises: ConfigError, DataError with a line for each that is another, before a stage runs.
    """
    from ropewalk.launch.pipeline import preflight, stages
    from ropewalk.launch.pipeline.run import runs_of
    from ropewalk.launch.reproduce import inputs

    runs, verb = runs_of(config), verb_of(evidence)
    preflight.refuse(runs, stages.stages_of(config, verb))
    recorded_inputs = evidence.record["inputs"]
    present = inputs.inputs(runs[-1], with_base="base" in recorded_inputs)
    lines = [
        f"{line}; the manifest's run can only be reproduced from the content that it names; bring "
        "it back, or give its place with key=PATH"
        for line in inputs.changes(recorded_inputs, present)
    ]
    if lines:
        raise DataError("\n".join(lines))


def run(evidence: Evidence, config: Config) -> Evidence:
    """Run the stages that the manifest has results of. Raises: RopewalkError."""
    from ropewalk.launch.pipeline import stages
    from ropewalk.launch.reproduce import evidence as evidences

    verb = verb_of(evidence)
    done = stages.execute(config, verb, f"ropewalk reproduce {evidence.record['name']}")
    return evidences.read(str(done.folder))

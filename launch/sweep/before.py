"""Before the first job of a sweep: which runs are done, and whether the others may start."""

import contextlib
import io
from collections.abc import Iterator, Sequence

from ropewalk.conf.errors import DONE, NOT_PROVEN, ConfigError, RopewalkError
from ropewalk.conf.schema import Config
from ropewalk.launch.cluster.slurm import as_in_the_job
from ropewalk.launch.config import compose
from ropewalk.launch.sweep.runs import PlannedRun, calibrations


def finished(run: PlannedRun, verb: str) -> int | None:
    """The exit code of a run that has nothing to do; None where it may have."""
    from ropewalk.launch.output import read_results, refused_gates
    from ropewalk.launch.pipeline import unchanged

    try:
        config = compose.compose(run.words, verb) if run.calibration else run.config
    except ConfigError:  # its table is not searched yet
        return None
    with contextlib.redirect_stdout(io.StringIO()):  # the preflight says the same of the sources
        stages = unchanged.finished_stages(config, verb)
    if stages is None:
        return None
    if verb not in ("run", "eval"):
        return DONE
    folder = unchanged.folder_of(config)
    return NOT_PROVEN if refused_gates(read_results(folder), config.eval.strict) else DONE


def preflight(runs: Sequence[PlannedRun], verb: str) -> None:
    """Check the models, sources and disks of all runs, and of the searches before them.

    Raises: ConfigError, DataError with the problems of all, each line once.
    """
    from ropewalk.launch import cli

    if not runs:
        return
    cli.load_libraries()
    checked = [(as_in_the_job(run.config), verb) for run in runs]
    checked += [(search.config, "calibrate") for search in calibrations(runs)]
    lines, errors = dict[str, None](), list[RopewalkError]()
    for config, its_verb in checked:
        lines |= dict.fromkeys(_checked(config, its_verb, errors))
    for line in lines:
        print(line, flush=True)
    if errors:
        worst = next((error for error in errors if isinstance(error, ConfigError)), errors[0])
        problems = [line for error in errors for line in str(error).splitlines()]
        raise type(worst)("\n".join(dict.fromkeys(problems)))


def _checked(config: Config, verb: str, errors: list[RopewalkError]) -> Iterator[str]:
    """What the preflight of one run prints: its notes and warnings."""
    from ropewalk.launch.pipeline import preflight, stages
    from ropewalk.launch.pipeline.run import runs_of

    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        try:
            preflight.refuse(runs_of(config), stages.stages_of(config, verb))
        except RopewalkError as error:
            errors.append(error)
    yield from output.getvalue().splitlines()

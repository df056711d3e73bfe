"""One preflight for every verb: what settings, headers, file names and counts show to be wrong is
told before the first long stage, all at once.

A check takes plain values and returns a list of problem lines, empty when nothing is wrong; it
stands in the room of its subject. Here the checks are called for the stages that they concern.
"""

from collections.abc import Collection, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

from transformers import PreTrainedConfig

from ropewalk.conf.artifacts import manifest
from ropewalk.conf.artifacts.folders import folder_problems
from ropewalk.conf.errors import ConfigError, DataError, problem_lines
from ropewalk.conf.schema import Config
from ropewalk.conf.sources import SYNTHETIC
from ropewalk.data import sources
from ropewalk.data import tokenizer as tokenizers
from ropewalk.data.dataset import DataArtifacts
from ropewalk.launch.pipeline import disk_space
from ropewalk.launch.pipeline.run import Run, data_inputs
from ropewalk.train import remote_code
from ropewalk.train.attention import refuse_unsupported
from ropewalk.train.base import base_config
from ropewalk.train.launcher import hostfile
from ropewalk.train.model import config_checks
from ropewalk.train.model.companions import generation_problems
from ropewalk.train.preflight import (
    file_problems,
    refuse_unfit_ranks,
    refuse_unmatched_names,
)

MAX_LISTED = 20


def refuse(runs: Sequence[Run], stages: Collection[str]) -> None:
    """Check the runs of all phases for what `stages` need.

    Raises: ConfigError with every problem of every phase, each line once; DataError when only the
        sources have problems.
    """
    lines = [line for run in runs for line in _problems(run, stages)] or _window_problems(runs)
    data_lines = (
        [line for run in runs for line in _source_problems(run)] if "data" in stages else []
    )
    if not lines and not data_lines:
        lines = disk_space.problems(runs, stages)
    if lines or data_lines:
        error = ConfigError if lines else DataError
        raise error("\n".join(dict.fromkeys(lines + data_lines)))


def _problems(run: Run, stages: Collection[str]) -> list[str]:
    lines = folder_problems("runs_dir", run.config.runs_dir, run.config.name)
    lines += folder_problems("cache_dir", run.config.cache_dir)
    if "train" in stages and manifest.read(run.folder / "train") is None:
        from ropewalk.train.metrics import refuse_missing_trackers

        lines += problem_lines(lambda: refuse_missing_trackers(run.config))
    return lines + _in_the_words_of_the_user(run.config, model_problems(run, stages))


def _in_the_words_of_the_user(config: Config, lines: list[str]) -> list[str]:
    """Lines about `model`, which is the first of `eval.models` where only these are measured."""
    if not lines or not config.eval.models:
        return lines
    from ropewalk.eval.measure import named

    name = named.of_data(config)
    return lines if name is None else named.in_its_words(name, lines)


def model_problems(run: Run, stages: Collection[str]) -> list[str]:
    """Problems of the base; without a config that can be read there is no more to check."""
    if lines := problem_lines(lambda: base_config(run.base)):
        return lines
    config = base_config(run.base)
    lines = problem_lines(lambda: run.rope_plan)
    if not lines:
        lines = _length_problems(run, stages)
    if set(stages) != {"rope"}:
        lines += file_problems(run.base, config)
    if "data" in stages:
        lines += _tokenizer_problems(run, config)
    if {"train", "calibrate"} & set(stages):
        lines += _training_problems(run, config)
    return lines


def _tokenizer_problems(run: Run, config: PreTrainedConfig) -> list[str]:
    """The files of the base's tokenizer, its size, and the tokens around documents."""
    from ropewalk.data import stage

    lines = problem_lines(lambda: run.tokenizer)
    if lines or (tokenizer := run.tokenizer) is None:
        return lines
    rows = getattr(config.get_text_config(decoder=True), "vocab_size", None)
    lines += tokenizers.size_problems(tokenizer, run.base.name, rows)
    lines += problem_lines(lambda: stage.boundary_tokens(run.config.data, tokenizer))
    for name, source in run.config.data.sources.items():
        lines += problem_lines(partial(stage.given_ids, name, source, tokenizer))
    return lines


def _length_problems(run: Run, stages: Collection[str]) -> list[str]:
    """Lengths that do not fit the new window, and held-out text that is not kept."""
    if not {"train", "eval", "calibrate"} & set(stages):
        return []
    from ropewalk.eval import preflight

    validation = run.config.train.validation
    validates = "train" in stages and validation.is_on and "nll_by_position" in validation.tasks
    measures = bool({"eval", "calibrate"} & set(stages)) and not run.is_followed
    lines = preflight.share_problems(run.config, measures, validates)
    if "eval" in stages and measures:
        lines += preflight.length_problems(run.config, run.rope_plan)
        lines += preflight.column_problems(run.config, run.rope_plan)
        lines += preflight.model_problems(run.config, run.rope_plan)
    if "calibrate" in stages:
        from ropewalk.eval.calibrate import candidate_model

        lines += problem_lines(lambda: candidate_model.refuse(run.config, run.rope_plan))
    return lines


def refuse_unmeasurable(runs: Sequence[Run], stages: Collection[str]) -> None:
    """After the data stage: held-out documents are long enough for what follows the training.

    Raises: DataError, before the first training starts.
    """
    from ropewalk.eval import preflight
    from ropewalk.train.loop.validation_inputs import haystacks

    lines = []
    for run in runs:
        if manifest.read(run.folder / "train") and manifest.read(run.folder / "eval"):
            continue
        data = DataArtifacts.of(run.output, run.cache)
        lines += preflight.validation_problems(run.config, data)
        if run.config.train.validation.is_on:
            lines += problem_lines(partial(haystacks, run.config, data, count=1))
        if "eval" in stages and not run.is_followed:
            lines += preflight.heldout_problems(run.config, run.rope_plan, data)
    if lines:
        raise DataError("\n".join(dict.fromkeys(lines)))


def _training_problems(run: Run, config: PreTrainedConfig) -> list[str]:
    """Attention, adapter targets, patterns of parameters, and ranks."""
    base, train = run.base, run.config.train
    launcher = train.launcher
    if launcher.hostfile is not None and (
        hostfile_lines := hostfile.problems(launcher.hostfile, launcher.ranks_per_node)
    ):
        return hostfile_lines
    s2_group = train.attention.s2_group
    lines = remote_code.problems(config, base.name) if base.trust_remote_code else []
    lines += problem_lines(lambda: refuse_unsupported(config, base.name, s2_group))
    lines += config_checks.problems(config, base.name, train.loss)
    if base.path is not None:
        lines += generation_problems(Path(base.path), base.name)
    for note in config_checks.notes(config):
        print(f"note: {note}")
    # Remote code may not be in the registry of models: the ranks check its own modules instead.
    if not base.trust_remote_code:
        lines += problem_lines(lambda: refuse_unmatched_names(config, train))
    return lines + problem_lines(lambda: _warn_of_unfit_ranks(run.config, config))


def _warn_of_unfit_ranks(config: Config, base: PreTrainedConfig) -> None:
    """Print what is slow. Raises: ConfigError for ranks that cannot work."""
    if warning := refuse_unfit_ranks(config, base):
        print(f"warning: {warning}")


def _source_problems(run: Run) -> list[str]:
    """List each text source and look at its first rows; the data stage takes the listings."""
    lines = []
    for name, source in run.config.data.sources.items():
        if source.kind in SYNTHETIC:
            continue
        try:
            listing = sources.list_source(source, name, run.config.data.max_document_bytes)
        except DataError as error:
            lines += str(error).splitlines()
            continue
        run.listings[name] = listing
        lines += sources.first_row_problems(listing, name, source.path)
    return lines


def _window_problems(runs: Sequence[Run]) -> list[str]:
    """A phase with a smaller window than the phase before it, whose model it starts from."""
    lines = []
    for previous, run in pairwise(runs):
        minimum, window = (r.rope_plan.max_position_embeddings for r in (previous, run))
        if window < minimum:
            lines.append(
                f"phases[{run.config.phase - 1}].rope.factor is {run.config.rope.factor}; its "
                f"window of {window} tokens must be at least that of the phase before, {minimum}, "
                "because it starts from that model; the factor counts from the original window: "
                "raise it"
            )
    return lines


def refuse_unfit_shards(config: Config) -> None:
    """Check the shards for `ropewalk data --merge`.

    Raises: ConfigError when shards are missing; DataError when one is damaged.
    """
    from ropewalk.data import stage

    inputs = data_inputs(Run(config))
    if missing := stage.missing_shards(config, inputs):
        listed = ", ".join(missing[:MAX_LISTED])
        if len(missing) > MAX_LISTED:
            listed += f" and {len(missing) - MAX_LISTED} more"
        raise ConfigError(
            f"--merge lacks shards {listed}; all must be there; make them with "
            "ropewalk data --shard I/N, or all missing ones with ropewalk data"
        )
    stage.verify_shards(config, inputs)

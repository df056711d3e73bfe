"""Checks of the measurements before the first long stage: lengths against the window, and held-out
text once its documents are counted. Each returns a list of problem lines."""

from importlib.util import find_spec

from ropewalk.conf import eval_models
from ropewalk.conf.errors import problem_lines
from ropewalk.conf.eval import EvalConfig
from ropewalk.conf.eval_ruler import RulerConfig
from ropewalk.conf.schema import Config
from ropewalk.data.dataset import DataArtifacts
from ropewalk.eval.measure import named
from ropewalk.eval.measure import suite as suites
from ropewalk.eval.measure.columns import run_labels
from ropewalk.eval.ruler.configurations import ALL
from ropewalk.eval.tasks import lm_eval_tasks, retrieval, ruler
from ropewalk.eval.tasks.passkey import question
from ropewalk.train.rope.plan import RopePlan


def length_problems(config: Config, plan: RopePlan) -> list[str]:
    """Lengths of eval that do not fit the longest context measured, or the base's window."""
    settings, lines = config.eval, list[str]()
    longest = settings.length or plan.max_position_embeddings
    if settings.run_models is not False and longest > plan.max_position_embeddings:
        lines.append(
            f"eval.length is {longest}; it must be at most what the rope plan is made for, "
            f"{plan.max_position_embeddings}; lower it, raise rope.target_length, or measure the "
            "trained model beyond on purpose: eval.run_models=false eval.models.NAME.path=FOLDER "
            "eval.models.NAME.beyond_window=true"
        )
    too_long = [length for length in settings.passkey_lengths or () if length > longest]
    if too_long and settings.passkey_tries and "passkey" in settings.tasks:
        lines.append(
            f"eval.passkey_lengths has {', '.join(map(str, too_long))}; it must be at most the "
            f"longest context that eval measures, {longest}; lower it, or raise eval.length"
        )
    if "ruler" in settings.tasks:
        lines += ruler_problems(settings.ruler, longest)
    if "short_context" in settings.tasks:
        lines += problem_lines(lambda: lm_eval_tasks.identity(settings.short_context.lm_eval))
    lines += vllm_problems(settings)
    lines += task_problems(settings, plan, longest)
    shortest, targets = min(plan.base_window, longest), settings.context_gain_tokens
    if targets is not None and targets >= shortest:
        lines.append(
            f"eval.context_gain_tokens is {targets}; the same tokens are measured under every "
            f"context from {shortest} tokens on, so it must be below {shortest}; lower it"
        )
    return lines


def task_problems(settings: EvalConfig, plan: RopePlan, longest: int) -> list[str]:
    """Of the language-modelling and retrieval tasks that are asked."""
    lists = {
        "sliding.windows": settings.sliding.windows,
        "yarn_compat.lengths": settings.yarn_compat.lengths,
        "yarn_compat.windows": settings.yarn_compat.windows,
        "pi_compat.windows": settings.pi_compat.windows,
        "json_kv.lengths": settings.json_kv.lengths,
        "needle.lengths": settings.needle.lengths,
        "multi_document_qa.lengths": settings.multi_document_qa.lengths,
    }
    lines = []
    for key, lengths in lists.items():
        too_long = [length for length in lengths or () if length > longest]
        if too_long and key.split(".")[0] in settings.tasks:
            lines.append(
                f"eval.{key} has {', '.join(map(str, too_long))}; it must be at most the longest "
                f"context that eval measures, {longest}; lower it, or raise eval.length"
            )
    chooses = "longppl" in settings.tasks and settings.longppl.evaluator == "base"
    if chooses and plan.base_window < longest:
        lines.append(
            f"eval.longppl.evaluator is base; its window of {plan.base_window} tokens must hold "
            f"the text of {longest}; choose another column or lower eval.length"
        )
    return lines


def ruler_problems(settings: RulerConfig, longest: int) -> list[str]:
    """Of its lengths, of the files that it names, and of those that a named configuration lacks."""
    lines = problem_lines(lambda: ruler.read_files(settings))
    for name in settings.configurations:
        key = ALL[name].data if name in ALL else ""
        if key and getattr(settings, key) is None:
            lines.append(
                f"eval.ruler.configurations has {name}; it asks about documents of a file, and "
                f"none is set; set eval.ruler.{key}=FILE or leave it out"
            )
    if too_long := [length for length in settings.lengths or () if length > longest]:
        lines.append(
            f"eval.ruler.lengths has {', '.join(map(str, too_long))}; it must be at most the "
            f"longest context that eval measures, {longest}; lower it, or raise eval.length"
        )
    return lines


def column_problems(config: Config, plan: RopePlan) -> list[str]:
    """Columns that settings name and that this run does not have."""
    if config.eval.run_models is False:
        return []  # the check of the settings knows them all
    labels = run_labels(config.model.scratch is not None, plan)
    asked = config.eval.columns_asked
    return list(eval_models.column_problems(asked, [*labels, *config.eval.models], "eval."))


def vllm_problems(settings: EvalConfig) -> list[str]:
    """vLLM is to decode, and this environment, where no other is named, does not have it."""
    if settings.backend != "vllm" or settings.vllm.python is not None or find_spec("vllm"):
        return []
    return [
        "eval.backend is vllm; it must be installed, and is not in this environment; set "
        "eval.vllm.python to the interpreter of one that has it, or eval.backend=transformers"
    ]


def model_problems(config: Config, plan: RopePlan) -> list[str]:
    """Of the models of `eval.models`: files, plans, tokenizers, and windows below the longest
    context measured, which the run's plan gives where none is set."""
    length = config.eval.length
    if config.eval.run_models is not False:
        length = length or plan.max_position_embeddings
    return named.problems(config, length)


def share_problems(config: Config, measures: bool, validates: bool) -> list[str]:
    """No held-out text for a measurement that reads it."""
    readers = ["eval"] * measures + ["train.validation"] * validates
    if config.data.heldout_share or not readers:
        return []
    return [
        f"data.heldout_share is 0; {' and '.join(readers)} must have held-out documents; set "
        "data.heldout_share=0.05"
    ]


def validation_problems(config: Config, data: DataArtifacts) -> list[str]:
    """No held-out document that is long enough for the loss during the training."""
    settings = config.train.validation
    length = settings.length or config.data.seq_len
    if not settings.is_on or "nll_by_position" not in settings.tasks:
        return []
    if data.heldout_text(config.data).windows(length, 1, 1):
        return []
    return [
        f"train.validation.length is {length}; no held-out document has that many tokens; raise "
        f"data.heldout_share (now {config.data.heldout_share}), lower train.validation.length or "
        "set train.validation.interval_steps=0"
    ]


def heldout_problems(config: Config, plan: RopePlan, data: DataArtifacts) -> list[str]:
    """Held-out text that is too short for the lengths of eval, told before the training.

    The tasks with questions are tried at their shortest and longest length, with one each.
    """
    return problem_lines(lambda: _try_suite(config, plan, data))


def _try_suite(config: Config, plan: RopePlan, data: DataArtifacts) -> None:
    """Raises: DataError."""
    suite = suites.build_suite(config, plan, data)
    if config.eval.passkey_tries and "passkey" in config.eval.tasks:
        lengths = config.eval.passkey_lengths or suite.contexts
        for length in {min(lengths), max(lengths)}:
            question(suite, length, 0, 0.5, number=0)
    if "ruler" in config.eval.tasks:
        ruler.try_samples(suite)
    retrieval.try_samples(suite)

"""Which commands measure `eval.models` alone: without settings of a training, or as set."""

import pytest

from ropewalk.conf.errors import ConfigError
from ropewalk.conf.eval_models import judged_column, reference_column
from ropewalk.conf.rope_methods import RopeConfig
from ropewalk.launch.config.compose import compose
from ropewalk.launch.pipeline.stages import VERB_STAGES, stages_of

NAMED = ["eval.models.a.path=./a", "eval.models.b.path=org/b", "data.sources.x.path=./x"]


def test_without_settings_of_a_training_nothing_is_trained() -> None:
    config = compose(["name=r", *NAMED, "eval.models.a.revision=v1"], "eval")
    assert config.eval.run_models is False and type(config.rope) is RopeConfig
    assert (config.model.path, config.model.revision) == ("./a", "v1")
    assert stages_of(config, "eval") == ("rope", "data", "eval", "report")


def test_the_tokenizer_of_the_data_may_be_another_model_s() -> None:
    assert compose(["name=r", *NAMED, "model.path=./c"], "report").model.path == "./c"


@pytest.mark.parametrize("more", [(), ("model.path=./c",), ("model.path=./c", "data.seq_len=512")])
def test_the_data_of_such_an_evaluation_are_made_by_the_same_settings(
    more: tuple[str, ...],
) -> None:
    words = ["name=r", *NAMED, *more]
    config = compose(words, "data")
    assert config == compose(words, "eval")
    assert stages_of(config, "data") == ("rope", "data")


def test_data_of_a_training_stay_its_own_beside_named_models() -> None:
    own = ["name=r", *NAMED, "model.path=./c", "data.seq_len=512", "rope.factor=4"]
    config = compose(own, "data")
    assert config.eval.run_models is None and config.rope.factor == 4


@pytest.mark.parametrize(
    ("more", "trains"), [((), True), (("eval.run_models=false",), False), (("rope=pi",), True)]
)
def test_a_recipe_s_training_is_measured_too_unless_it_is_set_off(
    more: tuple[str, ...], trains: bool
) -> None:
    config = compose(["recipe=demo", *NAMED[:2], *more], "eval")
    assert ("train" in stages_of(config, "eval")) == trains
    assert trains == (config.rope.factor == 8)


@pytest.mark.parametrize(
    ("columns", "asked", "expected"),
    [
        ("a b", (None, None), ("a", "b")),
        ("a b c", (None, None), ("a", "c")),
        ("a b c", ("c", None), ("c", "b")),
        ("a b c", (None, "b"), ("a", "b")),
        ("base rescaled extended other", (None, None), ("base", "extended")),
        ("base rescaled extended other", ("other", None), ("other", "extended")),
        ("base rescaled extended other", ("extended", None), ("extended", "other")),
        ("base rescaled extended", (None, "rescaled"), ("base", "rescaled")),
        ("a", (None, None), ("a", None)),
        ("extended", (None, None), ("extended", None)),
    ],
)
def test_which_column_is_judged_and_against_which(
    columns: str, asked: tuple[str | None, str | None], expected: tuple[str, str | None]
) -> None:
    names = columns.split()
    reference = reference_column(asked[0], names)
    assert (reference, judged_column(asked[1], names, reference)) == expected


def test_other_verbs_need_the_training() -> None:
    with pytest.raises(ConfigError, match=r"train\.steps is not set"):
        compose(["name=r", "model.path=./m", *NAMED], "run")
    assert stages_of(compose(["recipe=demo"], "eval"), "eval") == VERB_STAGES["eval"]


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (["eval.models.base.path=./a"], r"eval\.models\.base has the name of a column of the run"),
        (["eval.models.llama-3.1.path=./a"], r"3\.1\.path names a column with a dot; .* llama-3_1"),
        (["eval.models.a.path=./a", "eval.models.a.path=./b"], r"given twice, as \./a and \./b; a"),
        (["eval.models.a b.path=./a"], r"eval\.models\.a b names a column; a name has letters"),
        (["eval.models.a.paht=./a"], r"eval\.models\.a\.paht is not a setting; did you mean"),
        (["eval.models.a.revision=x"], r"eval\.models\.a\.path is not set; it is required"),
        (["eval.run_models=false"], r"eval\.run_models is False; there must be a model"),
        (["eval.reference=c", "eval.models.a.path=./a"], r"eval\.reference is c; it must be a col"),
        (
            ["eval.judged=c", "eval.models.a.path=./a"],
            r"judged is c; .* base, rescaled, extended, a",
        ),
        (["eval.longppl.evaluator=c"], r"eval\.longppl\.evaluator is c; it must be a column"),
        (["eval.judged=base"], r"eval\.judged is base; it must be another column than"),
        (["eval.judged=x", "eval.reference=x"], r"eval\.judged is x; it must be a column"),
    ],
)
def test_what_is_refused(words: list[str], rule: str) -> None:
    with pytest.raises(ConfigError, match=rule):
        compose(["recipe=demo", *words], "eval")


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        (
            ["eval.models.a=./a"],
            ["eval.models.a is ./a; it is a section of settings; set eval.mod"],
        ),
        (["eval.models=[./a]"], ["eval.models is ['./a']; it must be sections by name"]),
        ([*NAMED, "eval.tasks=passkey"], ["eval.tasks is passkey; it must be a list"]),
    ],
)
def test_a_model_that_is_named_wrongly_asks_for_no_training(
    words: list[str], lines: list[str]
) -> None:
    with pytest.raises(ConfigError) as refused:
        compose(["name=r", "data.sources.x.path=./x", *words], "eval")
    found = str(refused.value).splitlines()
    assert len(found) == len(lines)
    assert all(line.startswith(start) for line, start in zip(found, lines, strict=True)), found


def test_nothing_to_measure_says_how_models_are_named() -> None:
    with pytest.raises(
        ConfigError, match=r"^eval\.models is empty; .*set eval\.models\.NAME\.path"
    ):
        compose(["name=r", "data.sources.x.path=./x"], "eval")


def test_a_model_named_again_with_the_same_path_is_one_model() -> None:
    config = compose(["name=r", *NAMED, NAMED[0]], "eval")
    assert list(config.eval.models) == ["a", "b"]

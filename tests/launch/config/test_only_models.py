"""Which commands measure `eval.models` alone: without settings of a training, or as set."""

import pytest

from ropewalk.conf.errors import ConfigError
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


@pytest.mark.parametrize(
    ("more", "trains"), [((), True), (("eval.run_models=false",), False), (("rope=pi",), True)]
)
def test_a_recipe_s_training_is_measured_too_unless_it_is_set_off(
    more: tuple[str, ...], trains: bool
) -> None:
    config = compose(["recipe=demo", *NAMED[:2], *more], "eval")
    assert ("train" in stages_of(config, "eval")) == trains
    assert trains == (config.rope.factor == 8)


def test_other_verbs_need_the_training() -> None:
    with pytest.raises(ConfigError, match=r"train\.steps is not set"):
        compose(["name=r", "model.path=./m", *NAMED], "run")
    assert stages_of(compose(["recipe=demo"], "eval"), "eval") == VERB_STAGES["eval"]


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (["eval.models.base.path=./a"], r"eval\.models\.base has the name of a column of the run"),
        (["eval.models.a b.path=./a"], r"eval\.models\.a b names a column; a name has letters"),
        (["eval.models.a.paht=./a"], r"eval\.models\.a\.paht is not a setting; did you mean"),
        (["eval.models.a.revision=x"], r"eval\.models\.a\.path is not set; it is required"),
        (["eval.run_models=false"], r"eval\.run_models is False; there must be a model"),
        (["eval.reference=c", "eval.models.a.path=./a"], r"eval\.reference is c; it must be a col"),
    ],
)
def test_what_is_refused(words: list[str], rule: str) -> None:
    with pytest.raises(ConfigError, match=rule):
        compose(["recipe=demo", *words], "eval")

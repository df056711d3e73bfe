"""Every recipe of the field: composed and checked over its base's published config, its warnings
those that are meant, each number with an origin, held against what was published."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml
from recipe_bases import RECIPES, card, phases, settings

from ropewalk.conf import hardware_file, recipe_card
from ropewalk.conf.errors import DataError
from ropewalk.conf.schema import Config
from ropewalk.eval.report import anchors
from ropewalk.launch.pipeline.run import Run
from ropewalk.launch.recipes import table
from ropewalk.train.attention import refuse_unsupported
from ropewalk.train.base import base_config
from ropewalk.train.model import config_checks
from ropewalk.train.preflight import refuse_unfit_ranks, refuse_unmatched_names
from ropewalk.train.rope import stage
from ropewalk.train.rope.stage import RopeStage

NAMES = recipe_card.names()
OURS = {"base", "base_retrieval", "custom", "demo", "smollm2"}
NO_NUMBER = ("model.path", "model.revision", "data.sources")
"""Places, not numbers; but a source's numbers count."""


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The phases of a recipe and their rope plans, by its name."""
    folder, made = tmp_path_factory.mktemp("bases"), {}

    def of(name: str) -> list[tuple[Config, RopeStage]]:
        if name not in made:
            configs = phases(name, folder / name)
            made[name] = [(one, stage.make(one, Run(one).base)) for one in configs]
        return made[name]

    return of


def test_the_count() -> None:
    assert len(NAMES) == 20
    assert {path.stem for path in RECIPES.glob("*.yaml")} == {*NAMES, *OURS}


@pytest.mark.parametrize("name", NAMES)
def test_the_published_base_takes_the_recipe_with_the_warnings_that_are_meant(
    planned: Any, name: str
) -> None:
    found = [line for _, made in planned(name) for line in made.findings]
    meant = [finding.text for finding in card(name).findings]
    assert [line for line in found if not any(text in line for text in meant)] == []
    assert [text for text in meant if not any(text in line for line in found)] == []
    composed = [config for config, _ in planned(name)]
    facts = table.facts(name, composed, [made.plan for _, made in planned(name)])
    row = table.read()[name]
    assert {key: row[key] for key in facts} == facts, "make recipes"
    for config in composed:
        base = base_config(Run(config).base)
        refuse_unsupported(base, name, config.train.attention.s2_group)
        refuse_unfit_ranks(config, base)
        refuse_unmatched_names(base, config.train)
        assert config_checks.problems(base, name, config.train.loss) == []


@pytest.mark.parametrize("name", NAMES)
def test_every_number_has_an_origin_and_every_origin_a_number(name: str) -> None:
    keys = settings(name)
    numbers = {
        key
        for key in keys
        if not key.startswith(NO_NUMBER) or key.endswith(("weight", "_len", "length_weights"))
    }
    assert sorted(key for key in numbers if card(name).origin(key) is None) == []
    keys |= {f"data.{key}" for key in ("length_weights",) if uses_mixture(name)}
    for section in card(name).numbers:
        assert any(key == section or key.startswith(f"{section}.") for key in keys), section


def uses_mixture(name: str) -> bool:
    return "override /mixture" in (RECIPES / f"{name}.yaml").read_text()


@pytest.mark.parametrize("name", NAMES)
def test_a_card_names_what_exists(name: str) -> None:
    rows = {anchor.row for anchor in anchors.published()}
    assert set(card(name).anchor_rows) <= rows
    assert card(name).planned.hardware in hardware_file.names()
    trainings = len(yaml.safe_load((RECIPES / f"{name}.yaml").read_text()).get("phases", [0]))
    assert len(card(name).planned.gpus) in (1, trainings)


# figures that the publications or the released weights state, none of them computed by our code
THETAS = {
    # theta of the released weights, gradientai/Llama-3-8B-Instruct-262k and -Gradient-1048k
    ("gradient_1048k", 1): 283461213,
    ("gradient_1048k", 3): 3580165449,
    ("prolong", 0): 8.0e6,
    ("prolong", 1): 1.28e8,
    ("nextlong", 0): 2.0e8,
    ("easycontext_1m", 7): 1.0e9,
}
ATTENTION_FACTORS = {
    ("yarn_llama2", 0): 0.1 * math.log(16) + 1,
    ("yarn_llama2", 1): 0.1 * math.log(32) + 1,
    ("yarn_mistral", 1): 0.1 * math.log(16) + 1,
    ("olmo3_64k", 0): 1.2079441541679836,  # config.json of the release
    ("longrope2", 0): math.sqrt(1 + math.log(16) / math.log(8192)),
    ("gpt_oss", 0): 1.3465735902799727,
    ("deepseek_v3", 0): 1.0,
}
TOKENS = {  # billions, as published
    "yarn_llama2": 2.5,
    "gradient_1048k": 1.42,  # 63 + 101 + 419 + 839 million
    "prolong": 41.9,
    "fu_80k": 5.24,
    "granite_code": 4.06,
    "olmo3_64k": 50.0,
    "smollm3": 99.1,  # 47.2 and 51.9
    "longrope2": 10.0,
    "nextlong": 4.19,
    "deepseek_v3": 125.8,  # 1000 x 1920 x 32K and 1000 x 480 x 128K
    "codellama": 6.29,
    "longlora": 6.4,
    "pi_llama": 4.19,
}


@pytest.mark.parametrize(("name", "phase"), THETAS)
def test_theta_is_the_published_one(planned: Any, name: str, phase: int) -> None:
    parameters = planned(name)[phase][1].plan.rope_parameters
    assert round(parameters["rope_theta"]) == THETAS[name, phase]


@pytest.mark.parametrize(("name", "phase"), ATTENTION_FACTORS)
def test_the_temperature_is_the_published_one(planned: Any, name: str, phase: int) -> None:
    factor = planned(name)[phase][1].plan.attention_factor
    assert factor == pytest.approx(ATTENTION_FACTORS[name, phase], rel=1e-12)


@pytest.mark.parametrize("name", TOKENS)
def test_the_tokens_are_the_published_ones(planned: Any, name: str) -> None:
    tokens = sum(config.tokens for config, _ in planned(name)) / 1e9
    assert tokens == pytest.approx(TOKENS[name], rel=0.01)


HUB = "hf://datasets/princeton-nlp/prolong-data-"
SHORT = {
    **{"fineweb-edu": 0.1, "fineweb-2023-50": 0.1, "stackexchange": 0.04, "dolmawiki": 0.04},
    **{"tuluv2": 0.03, "arxiv": 0.03, "openwebmath": 0.03, "textbooks": 0.03},
}
PROLONG = [  # the domains of train_64K.sh and train_512K.sh, under the hub's names
    {"64K/thestackv1_concat_by_repo-65536": 0.3, "64K/book-65536": 0.3}
    | {f"64K/{name}": share for name, share in SHORT.items()},
    {"512K/thestackv1_concat_by_repo-524288": 0.15, "512K/thestackv1_concat_by_repo-65536": 0.15}
    | {"512K/book-524288": 0.05, "512K/book-65536": 0.25}
    | {f"512K/{name}": share for name, share in SHORT.items()},
]
SLIMPAJAMA = {  # per cent, of the paper's section 4
    **{"CommonCrawl": 67, "C4": 15, "Github": 4.5, "Wikipedia": 4.5, "Book": 4.5},
    **{"ArXiv": 2.5, "StackExchange": 2},
}


def test_prolongs_phases_read_the_domains_of_its_scripts_at_their_shares(planned: Any) -> None:
    for (config, _), expected in zip(planned("prolong"), PROLONG, strict=True):
        sources = config.data.sources.values()
        assert {str(s.path).removeprefix(HUB): s.weight for s in sources} == expected
        assert {(s.kind, s.ids_key, s.ids_begin) for s in sources} == {("mds", "input_ids", "bos")}


def test_fus_sources_take_slimpajamas_rows_at_the_papers_shares(planned: Any) -> None:
    ((config, _),) = planned("fu_80k")
    shares = {}
    for source in config.data.sources.values():
        assert source.where is not None and set(source.where) == {"meta.redpajama_set_name"}
        shares[source.where["meta.redpajama_set_name"]] = source.weight
    assert shares == {f"RedPajama{name}": share / 100 for name, share in SLIMPAJAMA.items()}


WIDTHS = ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")
DOCUMENTED = {  # card -> the class that transformers documents by its base, and what else agrees
    "yarn_llama2": ("LlamaConfig", ("num_hidden_layers", "vocab_size")),
    "pi_llama": ("LlamaConfig", ("num_hidden_layers", "vocab_size", "max_position_embeddings")),
    "yarn_mistral": ("MistralConfig", ("num_hidden_layers", "vocab_size", "sliding_window")),
    "smollm3": ("SmolLM3Config", ("num_hidden_layers", "vocab_size", "no_rope_layer_interval")),
    "gpt_oss": ("GptOssConfig", ("head_dim", "vocab_size", "sliding_window")),
    "olmo3_64k": ("Olmo3Config", ("num_hidden_layers", "sliding_window")),
}


@pytest.mark.parametrize("name", DOCUMENTED)
def test_a_cards_widths_are_those_of_the_class_that_is_documented_by_its_base(name: str) -> None:
    kind, further = DOCUMENTED[name]
    default = getattr(transformers, kind)()
    for key in (*WIDTHS, *further):
        assert card(name).base.config[key] == getattr(default, key), key


def test_olmo3s_widths_give_the_parameters_that_the_hub_counts(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(card("olmo3_64k").base.config))
    with torch.device("meta"):
        config = transformers.AutoConfig.from_pretrained(tmp_path)
        model = transformers.AutoModelForCausalLM.from_config(config)
    assert model.num_parameters() == 7_298_011_136  # of farhatkevin/olmo3-7b-mt-chicken_all_100b


RESULT = {
    **dict.fromkeys(("model", "metric", "protocol", "data", "tokenizer", "by", "source"), "x"),
    **{"at": [1, 2], "values": [1.0, 2.0]},
}
GOOD = yaml.safe_load((recipe_card.FOLDER / "gpt_oss.yaml").read_text())


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"numbers": {"train.steps": "a guess"}}, "numbers.train.steps is a guess; it must be"),
        ({"shrink": 0}, "shrink is 0; it must be"),
        ({"planned": {"hardware": "h100"}, "tittle": "x"}, "Key 'tittle' not in"),
        ({"anchors": [{**dict.fromkeys(("model", "metric", "protocol", "data"), "x")}]}, "tokeni"),
        ({"anchors": [RESULT | {"values": [1.0]}]}, r"anchors\[0\] has 1 values at 2 places; each"),
        ({"anchors": [RESULT | {"values": [1.0, "2"]}]}, r"anchors\[0\] has values \[1\.0, '2'\]"),
    ],
)
def test_a_wrong_card_is_refused(tmp_path: Path, change: dict[str, Any], line: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({**GOOD, **change}))
    with pytest.raises(DataError, match=line):
        recipe_card.read(path)

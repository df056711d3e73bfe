"""The command line: exit codes, output, and no traceback."""

import json
import math
import re
from pathlib import Path

import pyarrow.parquet
import pytest
import yaml

from ropewalk.conf.errors import ConfigError, DataError, ProofError, Stopped
from ropewalk.conf.rope_methods import ROPE_METHODS
from ropewalk.launch.arguments import EXAMPLES, parser
from ropewalk.launch.cli import main
from ropewalk.launch.config import compose as composing

README = Path(__file__).parents[2] / "README.md"


def exits(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[object, str, str]:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err + captured.out
    return stopped.value.code, captured.out, captured.err


@pytest.mark.parametrize(
    "verb", ["run", "rope", "data", "train", "eval", "report", "calibrate", "export"]
)
def test_refused_configuration_exits_2_with_a_line_a_problem(
    capsys: pytest.CaptureFixture[str], verb: str
) -> None:
    overrides = ["train.optimizer.lr=-1", "rope.factor=0.5", "+train.foo=1"]
    code, output, error = exits(capsys, verb, "recipe=demo", *overrides)
    assert (code, output) == (2, "")
    head, *lines = error.splitlines()
    assert head == "config error:"
    starts = ["train.foo is not a setting", "rope.factor is 0.5; ", "train.optimizer.lr is -1.0; "]
    assert [line[: len(start)] for line, start in zip(lines, starts, strict=True)] == starts


def test_nothing_is_written_when_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    exits(capsys, "run", "recipe=demo", "train.optimizer.lr=-1")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [["recipe=nope"], ["recipe=demo", "train.optimizer.lr=abc"], ["--config-dir", "./nowhere"]],
)
def test_other_refusals_exit_2(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    code, _, error = exits(capsys, "run", *arguments)
    assert code == 2 and error.startswith("config error:\n") and len(error.splitlines()) == 2


@pytest.mark.parametrize(
    "arguments", [[], ["walk"], ["run", "--nope"], ["run", "recipe=demo", "--cfg", "all"]]
)
def test_wrong_usage_exits_2(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    assert exits(capsys, *arguments)[0] == 2


def test_help_names_every_verb_and_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    code, output, _ = exits(capsys, "--help")
    assert code == 0
    verbs = ("run", "rope", "data", "train", "eval", "report", "runs [FOLDER]", "ropewalk env")
    assert all(text in output for text in (*verbs, "75 stopped", "3 a proof"))


@pytest.mark.parametrize(
    ("error", "code", "head"),
    [
        (ConfigError("a\nb"), 2, "config error:"),
        (DataError("a\nb"), 2, "data:"),
        (ProofError("a\nb"), 3, "proof:"),
        (Stopped("a\nb"), 75, "stopped:"),
        (KeyboardInterrupt(), 75, "stopped; run the same command again"),
    ],
)
def test_each_error_has_its_exit_code(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    code: int,
    head: str,
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(composing, "compose", fail)
    exit_code, _, captured = exits(capsys, "run", "recipe=demo")
    assert exit_code == code and captured.startswith(head)
    if error.args:
        assert captured.splitlines()[1:] == ["a", "b"]


def test_cfg_job_prints_the_configuration_and_writes_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    main(["run", "recipe=demo", "rope=pi", "train.optimizer.lr=1e-5", "--cfg", "job"])
    content = yaml.safe_load(capsys.readouterr().out)
    assert (content["name"], content["rope"]["method"]) == ("demo", "pi")
    assert content["train"]["optimizer"]["lr"] == 1e-5
    assert "beta_fast" not in content["rope"] and list(tmp_path.iterdir()) == []


def test_cfg_job_refuses_what_a_run_would_refuse(capsys: pytest.CaptureFixture[str]) -> None:
    assert exits(capsys, "run", "recipe=demo", "train.optimizer.lr=-1", "--cfg", "job")[0] == 2


def test_settings_may_stand_on_both_sides_of_an_option(capsys: pytest.CaptureFixture[str]) -> None:
    main(["run", "recipe=demo", "--cfg", "job", "name=mine"])
    assert yaml.safe_load(capsys.readouterr().out)["name"] == "mine"


def test_a_user_s_recipe_from_a_folder(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "recipe").mkdir()
    (tmp_path / "recipe" / "mine.yaml").write_text(
        "# @package _global_\ndefaults: [demo]\nname: mine\nseed: 42\n"
    )
    main(["run", "recipe=mine", "--config-dir", str(tmp_path), "--cfg", "job"])
    assert yaml.safe_load(capsys.readouterr().out)["seed"] == 42


def test_sweep_shows_each_run_under_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    main(["run", "-m", "recipe=demo", "rope=pi,yarn", "--cfg", "job"])
    lines = capsys.readouterr().out.splitlines()
    names = [line for line in lines if line.startswith("name: ")]
    assert names == ["name: demo-pi", "name: demo-yarn"]


def test_sweep_refuses_a_bad_combination_before_the_first_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    composed: list[object] = []
    compose = composing.compose
    monkeypatch.setattr(
        composing, "compose", lambda *words: composed.append(words) or compose(*words)
    )
    overrides = ["recipe=demo", "train.optimizer.lr=1e-3,-1"]
    code, output, error = exits(capsys, "run", "-m", *overrides, "--cfg", "job")
    assert code == 2 and "train.optimizer.lr is -1.0" in error
    assert output == "" and len(composed) == 2


RECIPE = """\
# @package _global_
name: tiny
model:
  scratch: {vocab_size: 300, hidden_size: 32, intermediate_size: 32, num_hidden_layers: 1,
            num_attention_heads: 2, num_key_value_heads: 1, max_position_embeddings: 64}
rope: {factor: 4}
data: {seq_len: 256, sources: {none: {path: ./nowhere}}}
train: {steps: 1, optimizer: {lr: 1.0e-3}}
"""


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    (tmp_path / "conf" / "recipe").mkdir(parents=True)
    (tmp_path / "conf" / "recipe" / "tiny.yaml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    return ["recipe=tiny", "--config-dir", str(tmp_path / "conf")]


def test_rope_json_prints_the_plan_alone(
    capsys: pytest.CaptureFixture[str], tiny: list[str]
) -> None:
    main(["rope", "cache_dir=cache", *tiny, "--json"])
    content = json.loads(capsys.readouterr().out)
    assert (content["method"], content["factor"]) == ("yarn", 4)
    assert content["original_max_position_embeddings"] == 64
    assert content["max_position_embeddings"] == 256 and len(content["inv_freq"]) == 8
    assert content["attention_factor"] == pytest.approx(0.1 * math.log(4) + 1)
    assert content == json.loads(Path("runs/tiny/rope.json").read_text())


def test_rope_shows_the_plan_and_its_path(
    capsys: pytest.CaptureFixture[str], tiny: list[str]
) -> None:
    main(["rope", "cache_dir=cache", *tiny])
    *_, last = capsys.readouterr().out.splitlines()
    assert last == "wrote runs/tiny/rope.json"
    main(["rope", "cache_dir=cache", *tiny])
    assert "rope: done before with the same settings and inputs; skipped" in capsys.readouterr().out


def test_run_folder_keeps_the_frozen_settings_and_a_manifest(
    capsys: pytest.CaptureFixture[str], tiny: list[str]
) -> None:
    main(["rope", "cache_dir=cache", *tiny])
    assert yaml.safe_load(Path("runs/tiny/config.yaml").read_text())["rope"]["factor"] == 4
    content = json.loads(Path("runs/tiny/manifest.json").read_text())
    assert (content["schema"], content["name"], list(content["stages"])) == (1, "tiny", ["rope"])


def test_rope_shows_other_methods_beside_the_plan_and_a_picture(
    capsys: pytest.CaptureFixture[str], tiny: list[str]
) -> None:
    main(["rope", "cache_dir=cache", *tiny, "--compare", "pi,llama3,abf"])
    output = capsys.readouterr().out
    columns = next(line for line in output.splitlines() if line.split()[:1] == ["dim"])
    assert columns.split()[-4:] == ["yarn", "pi", "llama3", "abf"]
    assert "llama3" in Path("runs/tiny/rope.svg").read_text()
    code, _, error = exits(capsys, "rope", "cache_dir=cache", *tiny, "--compare", "pi,rope")
    assert code == 2 and "--compare has rope; the methods are none, pi" in error


def test_rope_warns_before_anything_is_loaded_and_keeps_the_warning(
    capsys: pytest.CaptureFixture[str], tiny: list[str]
) -> None:
    main(["rope", "cache_dir=cache", *tiny, "rope=pi", "rope.factor=5", "--json"])
    captured = capsys.readouterr()
    assert "rope warning: rope.factor is 5; beyond 4 position interpolation" in captured.err
    assert any("beyond 4" in line for line in json.loads(captured.out)["findings"])


@pytest.fixture
def texts(tiny: list[str]) -> list[str]:
    """The arguments of a data run on twelve small text files."""
    Path("texts").mkdir()
    for number in range(12):
        Path("texts", f"{number}.txt").write_text("the rope is laid of three strands " * 40)
    return ["data", "cache_dir=cache", *tiny, "data.sources.none.path=texts", "data.seq_len=128"]


def test_data_json_prints_the_ledger_alone(
    capsys: pytest.CaptureFixture[str], texts: list[str]
) -> None:
    """Messages of the stages go to stderr, also of skipped stages and of an export."""
    for arguments in (["data.contamination.action=report"], ["--export", "out"]):
        main([*texts, "--json", *arguments])
        captured = capsys.readouterr()
        ledger = json.loads(Path("runs/tiny/data/ledger.json").read_text())
        assert json.loads(captured.out) == ledger
        stages = ("tokens of none", "plan", "data")
        assert all(f"{stage}: done" in captured.err for stage in stages)
    assert "wrote out" in captured.err


def test_data_exports_its_sequences(capsys: pytest.CaptureFixture[str], texts: list[str]) -> None:
    arguments = [*texts, "--export"]
    main([*arguments, "out"])
    captured = capsys.readouterr().out
    assert "export: done in" in captured and "wrote out" in captured
    rows = pyarrow.parquet.read_table("out/data").to_pylist()
    plan = json.loads(Path("runs/tiny/data/ledger.json").read_text())["plan"]
    assert len(rows) == plan["sequences"]
    assert sum(len(row["input_ids"]) for row in rows) == plan["tokens"]
    main([*arguments, "out"])
    skipped = "export: done before with the same settings and inputs; skipped"
    assert skipped in capsys.readouterr().out


def test_export_is_refused_before_a_token_is_written(
    capsys: pytest.CaptureFixture[str], tiny: list[str]
) -> None:
    arguments = ["data", "cache_dir=cache", *tiny, "data.positions=continue", "--export", "out"]
    code, _, error = exits(capsys, *arguments)
    assert code == 2 and "data.positions is continue; other programs take a restart" in error
    assert not Path("cache").exists()
    assert exits(capsys, "data", "-m", *tiny, "seed=1,2", "--export", "out")[0] == 2
    code, _, error = exits(capsys, "data", "cache_dir=cache", *tiny, "--export", ".")
    assert code == 2 and "must be new, empty or an earlier export" in error
    assert not Path("cache").exists()


def test_missing_data_exits_2(capsys: pytest.CaptureFixture[str], tiny: list[str]) -> None:
    code, _, error = exits(capsys, "data", "cache_dir=cache", *tiny)
    assert code == 2
    assert error.splitlines()[0] == "data:" and "data.sources.none.path is ./nowhere" in error


def test_every_verb_has_a_help(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("run", "rope", "data", "train", "eval", "report", "calibrate", "export"):
        assert parser().parse_args([verb]).verb == verb
        assert "exit codes" in exits(capsys, verb, "--help")[1]


@pytest.mark.parametrize("method", ROPE_METHODS)
def test_help_and_readme_name_every_rope_method(method: str) -> None:
    rows = re.findall(r"^\| (`.*?) \|", README.read_text(), flags=re.MULTILINE)
    assert any(f"`{method}`" in row for row in rows)
    groups = " ".join(EXAMPLES.split())
    assert re.search(rf"rope=METHOD \([^)]*\b{method}\b", groups)

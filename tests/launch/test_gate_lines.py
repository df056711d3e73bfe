"""What a gate prints, and which gates end a command with exit code 3."""

from pathlib import Path
from typing import Any

import pytest

from ropewalk.conf.artifacts.manifest import run_stage, write_json
from ropewalk.conf.errors import NOT_PROVEN
from ropewalk.launch import cli
from ropewalk.launch.output import gate_line, refused_gates


def gate(verdict: str, decides: bool = True, **values: Any) -> dict[str, Any]:
    row = {"name": "Short documents", "question": 5, "text": "+0.010 nats [-0.010, +0.030]"}
    row |= {"verdict": verdict, "rule": "at most +0.02", "unit": "document", "n": 16}
    return row | {"needed_n": 41 if verdict == "undecided" else None, "decides": decides} | values


@pytest.mark.parametrize(
    ("verdict", "decides", "strict", "refused"),
    [
        ("pass", True, True, False),
        ("fail", True, False, True),
        ("fail", False, True, False),
        ("undecided", True, False, False),
        ("undecided", True, True, True),
        ("undecided", False, True, False),
    ],
)
def test_a_failed_gate_refuses_and_an_undecided_one_where_strict(
    verdict: str, decides: bool, strict: bool, refused: bool
) -> None:
    gates = [gate("pass"), gate(verdict, decides)]
    assert bool(refused_gates({"gates": gates}, strict)) is refused


def test_strict_wants_a_gate_that_decides() -> None:
    shown = {"gates": [gate("pass", False)]}
    (line,) = refused_gates(shown, strict=True)
    assert line.startswith("eval.strict is true; a gate must decide, and none does: ")
    (line,) = refused_gates({"gates": [], "not_judged": "no column beside a"}, strict=True)
    assert "none does: no column beside a; unset it" in line
    assert refused_gates(shown, strict=False) == []


@pytest.mark.parametrize(
    ("judged", "way_out"), [("extended", "train on more text"), ("b", "choose another model")]
)
def test_a_failed_gate_says_what_to_do_about_the_judged_column(judged: str, way_out: str) -> None:
    (line,) = refused_gates({"gates": [gate("fail")], "judged": judged}, strict=False)
    assert f"at most +0.02; {way_out}" in line


def test_an_undecided_gate_says_the_n_that_would_decide() -> None:
    line = gate_line(gate("undecided"))
    assert line.endswith("(at most +0.02); n that would decide: 41 (document; 16 measured)")
    assert line.count("undecided") == 1
    assert "none, the value is the tolerance" in gate_line(gate("undecided", needed_n=None))
    assert "would decide" not in gate_line(gate("pass"))
    assert gate_line(gate("fail")).split()[0] == "FAIL"
    assert gate_line(gate("fail", decides=False)).split()[0] == "fail"


@pytest.mark.parametrize("verb", ["run", "eval", "report"])
@pytest.mark.parametrize(
    ("verdict", "strict", "code"),
    [("pass", True, 0), ("fail", False, 3), ("undecided", False, 0), ("undecided", True, 3)],
)
def test_run_and_eval_exit_by_the_gates_after_all_is_written(
    verb: str, verdict: str, strict: bool, code: int, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    """Every stage stands in; report only shows."""
    (tmp_path / "demo" / "eval").mkdir(parents=True)
    write_json(tmp_path / "demo" / "eval" / "results.json", {"gates": [gate(verdict)]})
    monkeypatch.setattr(cli, "run_stages", lambda *_: FakeRun(tmp_path / "demo"))
    arguments = [verb, "recipe=demo", f"runs_dir={tmp_path}", f"eval.strict={strict}"]
    expected = code if verb != "report" else 0
    if not expected:
        cli.main(arguments)
    else:
        with pytest.raises(SystemExit) as exit_:
            cli.main(arguments)
        assert exit_.value.code == expected == NOT_PROVEN
    out = capsys.readouterr()
    assert "wrote " in out.out and "Short documents" in out.out
    assert ("Short documents is +0.010" in out.err) == bool(expected)


def test_an_evaluation_that_leaves_a_former_page_says_so_and_what_to_type(
    tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    run = tmp_path / "demo"

    def evaluate(windows: int) -> None:
        content = {"inputs": {}, "eval": {"windows": windows}}
        made, _ = run_stage("eval", content, run / "eval", write_results)
        monkeypatch.setattr(cli, "run_stages", lambda *_: FakeRun(run))
        if not (run / "report").exists():
            page = {"inputs": {"eval": made.fingerprint}}
            run_stage("report", page, run / "report", write_page)
        cli.main(["eval", "recipe=demo", f"runs_dir={tmp_path}", f"eval.windows={windows}"])

    evaluate(8)
    page = run / "report" / "index.html"
    assert f"the page: {page}" in capsys.readouterr().out
    evaluate(4)
    out = capsys.readouterr().out
    assert f"{page}: the page is of a former evaluation" in out
    assert f"ropewalk report recipe=demo runs_dir={tmp_path} eval.windows=4" in out


def write_results(folder: Path) -> dict[str, Any]:
    write_json(folder / "results.json", {"gates": []})
    return {}


def write_page(folder: Path) -> dict[str, Any]:
    (folder / "index.html").touch()
    return {}


class FakeRun:
    def __init__(self, output: Path) -> None:
        self.output = output

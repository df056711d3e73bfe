"""Commands, links and settings in the README and the docs are valid."""

import re
import shlex

import pages
import pytest
from compared_runs import RunFolder, planted
from pages import PAGES, ROOT

from ropewalk.conf import settings
from ropewalk.launch.arguments import VERBS, parse, parser
from ropewalk.launch.cli import main
from ropewalk.launch.verbs import WITHOUT_A_RUN

README = (ROOT / "README.md").read_text()
LINKS = [
    (p, link) for p in PAGES for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", p.read_text())
]
LINES = [line for page in PAGES for line in pages.commands_of(page)]
# started by another program: what follows `ropewalk` is ours
STARTED = [
    "ropewalk " + line.split(" ropewalk ")[1]
    for page in PAGES
    for block in pages.blocks(page, "bash")
    for line in block.replace("\\\n", " ").splitlines()
    if " ropewalk " in line
]
LOOKS = [line for line in LINES if re.match(r"ropewalk (runs|env|settings)\b", line)]
COMPARISONS = [line for line in LINES if line.startswith("ropewalk compare ")]
OF_A_RUN = [line for line in LINES if re.match(r"ropewalk (reproduce|pack)\b", line)]
"""Of a run that is there; tests/test_reproduce.py runs them."""
NOT_COMPOSED = (*LOOKS, *COMPARISONS, *OF_A_RUN)
ROPEWALK = [line for line in LINES if line.startswith("ropewalk ") and line not in NOT_COMPOSED]
ROPEWALK += STARTED
EXTRAS = re.findall(r"\.\[(\w+)\]", README)
KEY = re.compile(
    r"`((?:data|train|eval|rope|model|calibrate|export|launch)(?:\.[a-z]\w*|\.NAME)+)(?![\w/])"
)
SETTINGS_PAGES = [ROOT / "CHANGELOG.md", *(p for p in PAGES if p.name != "CONTRIBUTING.md")]
NOT_SETTINGS = {"rope.json", "rope.scaling.attn_factor"}  # a file, a key of llama.cpp
MAKE = [line.split()[1] for line in LINES if line.startswith("make ")]


def test_the_readme_has_the_expected_commands():
    assert len(ROPEWALK) >= 8
    assert {"demo", "test", "smollm2"} <= set(MAKE)
    assert all(line.split()[0] in ("ropewalk", "make", "pip") for line in LINES)
    data, training = (
        {"dedup", "zstd", "datatrove", "http"},
        {"lora", "qlora", "bnb", "flash", "flash4"},
    )
    assert data | training | {
        "gguf",
        "calibrate",
        "tensorboard",
        "trackio",
        "mlflow",
        "eval",
        "prices",
        "slurm",
    } == set(EXTRAS)


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """A folder with the files that the pages give."""
    folder = tmp_path_factory.mktemp("files")
    for page in PAGES:
        pages.write_files(page, folder)
    return folder


@pytest.mark.parametrize("line", ROPEWALK)
def test_each_ropewalk_command_composes_and_passes_the_check(line, files, capsys, monkeypatch):
    monkeypatch.chdir(files)
    ours, dashes, launchers = line.partition(" -- ")
    arguments = [word for word in shlex.split(ours)[1:] if word != "--json"]
    main([*arguments, "--cfg", "job", *shlex.split(dashes + launchers)])
    assert "schema: 1" in capsys.readouterr().out


@pytest.mark.parametrize("line", dict.fromkeys(COMPARISONS))
def test_each_comparison_writes_its_page(line, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    words = shlex.split(line)[1:]
    runs = {word.partition(":")[0] for word in words if word.startswith("runs/")}
    for number, run in enumerate(sorted(runs)):
        kept = {"base": planted(9), "extended": planted(number)}
        RunFolder(run.removeprefix("runs/"), kept).write(tmp_path / "runs")
    main(words)
    assert "past_window" in capsys.readouterr().out
    assert (tmp_path / "comparison" / "index.html").is_file()


@pytest.mark.parametrize("line", OF_A_RUN)
def test_each_command_on_a_run_is_parsed(line):
    assert parse(shlex.split(line)[1:]).verb == line.split()[1]


@pytest.mark.parametrize("line", LOOKS)
def test_each_look_prints_something(line, capsys, monkeypatch, tmp_path):
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    main([word for word in shlex.split(line)[1:] if word != "--probe"])  # it takes seconds
    assert capsys.readouterr().out
    assert parser().parse_args(shlex.split(line)[1:])


@pytest.mark.parametrize("target", MAKE)
def test_each_make_target_exists(target):
    assert re.search(rf"^{target}:.*## ", (ROOT / "Makefile").read_text(), re.M)


@pytest.mark.parametrize("extra", EXTRAS)
def test_each_extra_exists(extra):
    assert re.search(rf"^{extra} = \[", (ROOT / "pyproject.toml").read_text(), re.M)


@pytest.mark.parametrize(("page", "link"), LINKS, ids=lambda part: getattr(part, "name", part))
def test_each_link_has_a_file(page, link):
    assert (page.parent / link).exists()


@pytest.mark.parametrize("page", SETTINGS_PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_settings_that_a_page_names_exist(page):
    names = [row["name"].replace("[]", "") for row in settings.rows()]
    for key in set(KEY.findall(page.read_text())) - NOT_SETTINGS:
        general = re.sub(r"^data\.sources\.\w+", "data.sources.NAME", key)
        assert any(f"{name}.".startswith(f"{general}.") for name in names), key


TROUBLES = ROOT / "docs" / "troubleshooting.md"
QUOTES = [line for block in pages.blocks(TROUBLES, "message") for line in block.splitlines()]


@pytest.fixture(scope="module")
def messages():
    return pages.messages()


def test_the_messages_that_a_page_quotes_are_those_of_the_code(messages):
    """To the letter, with `…` for values: a reworded message is found here."""
    assert len(QUOTES) > 60 and min(map(len, QUOTES)) > 20
    every = "\n".join(messages)
    assert [quote for quote in QUOTES if quote not in every] == []


def test_the_lines_of_the_self_test_that_a_page_names_are_its_own(messages):
    names = re.findall(r"[Ll]ines? ((?:`[^`]+`(?:, | and )?)+)", TROUBLES.read_text())
    listed = [name for group in names for name in re.findall(r"`([^`]+)`", group)]
    assert len(listed) > 10 and [name for name in listed if name not in messages] == []


def test_the_verbs_that_a_page_names_exist():
    named = set(re.findall(r"`ropewalk (\w+)", TROUBLES.read_text()))
    assert len(named) > 4 and named <= set(VERBS) | set(WITHOUT_A_RUN)

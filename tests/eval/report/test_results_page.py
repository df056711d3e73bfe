"""The sections of the evaluation: every number of results.json, verdicts, sentences, gaps."""

import re

from report_run import BLOCKS, Page, checks, gates, results, write_json

from ropewalk.eval.report.page import render


def test_every_number_of_the_results_is_on_the_page(html):
    page = Page(html)
    for model in results()["models"].values():
        for row in model["nll_by_position"]:
            expected = {f"{row[key]:,}" for key in ("from", "to", "tokens")}
            expected |= {f"{row[key]:.3f}" for key in ("nll", "low", "high")}
            assert expected <= page.tokens("position")
        perplexities = {f"{value:.2f}" for value in model["perplexity"].values()}
        assert perplexities <= page.tokens("perplexity")
        for row in model["context_gain"]:
            expected = {f"{row[key]:.3f}" for key in ("nll", "low", "high")}
            differences = ("difference", "difference_low", "difference_high")
            expected |= {f"{row[key]:+.3f}" for key in differences}
            expected |= {f"{row[key]:,}" for key in ("context", "tokens")}
            assert expected <= page.tokens("gain")
        for row in model["passkey"]:
            expected = {f"{row[key]:.2f}" for key in ("accuracy", "low", "high")}
            expected |= {f"{row['length']:,}", f"{row['depth']:.0%}", str(row["n"])}
            assert expected <= page.tokens("passkey")


def test_gates_of_no_question_are_tiles_with_their_rules(html):
    header = re.sub(r"\s+", " ", Page(html).text["header"])
    for gate in checks():
        assert all(str(gate[key]) in header for key in ("name", "rule", "text"))
    tiles = html[html.index('<div class="tiles">') : html.index("</header>")]
    assert [tiles.count(said) for said in ("✓ pass", "✗ fail", "? undecided")] == [1, 1, 1]
    assert all(part in header for part in ("3 of 8 gates pass", "2 fail", "3 are undecided."))
    assert "5 stand at the questions above, 3 of no question below." in header
    assert "? undecided; 61,523 would decide" in header
    assert "256 → 2,048 tokens (×8, yarn)" in header


def test_gates_of_questions_alone_are_counted_too(run_dir):
    """An evaluation of named models has no others."""
    write_json(run_dir / "eval" / "results.json", results() | {"gates": gates()})
    header = re.sub(r"\s+", " ", Page(render(run_dir)).text["header"])
    assert "2 of 5 gates pass" in header and "No gates" not in header
    assert "5 stand at the questions above, none of no question below." in header
    write_json(run_dir / "eval" / "results.json", results() | {"gates": []})
    assert "No gates. The evaluation gave none." in re.sub(
        r"\s+", " ", Page(render(run_dir)).text["header"]
    )


def test_the_sentences_agree_with_the_numbers(html):
    text = Page(html).text
    beyond = {
        name: sum(v * (3073 + k) for k, v in enumerate(b[1:])) / sum(3073 + k for k in range(7))
        for name, b in BLOCKS.items()
    }
    losses = "{base:.3f} (base), {rescaled:.3f} (rescaled) and {extended:.3f} (extended)"
    expected = f"Beyond the base's window of 256 tokens the mean loss is {losses.format(**beyond)};"
    assert expected in text["position"]
    change = "targets changes by \u22120.180 nats (\u22120.213 to \u22120.150): lower."
    assert change in text["gain"]
    correct = "0 of 300 (base), 95 of 300 (rescaled) and 270 of 300 (extended)"
    assert f"Beyond 256 tokens the keys found are {correct}" in text["passkey"]
    frequencies = "4 are kept, 8 are interpolated by the full factor and 4 lie in between"
    assert f"Of 16 frequencies {frequencies}" in text["rope"]
    assert "71.2% of the plan's tokens have more than 256 tokens" in text["data"]
    assert "31.8% have more than 1,024." in text["data"]


def test_a_difference_whose_interval_holds_zero_is_not_shown_to_differ(run_dir):
    changed = results()
    difference = {"difference": -0.01, "difference_low": -0.03, "difference_high": 0.01}
    changed["models"]["extended"]["context_gain"][-1] |= difference
    write_json(run_dir / "eval" / "results.json", changed)
    assert "not shown to differ" in Page(render(run_dir)).text["gain"]


def test_a_missing_model_keeps_its_column(run_dir):
    changed = results()
    del changed["models"]["extended"]
    write_json(run_dir / "eval" / "results.json", changed)
    page = Page(render(run_dir))
    assert "extended" in page.tokens("perplexity")
    assert page.text["perplexity"].count("not run") == 4
    assert "Not run." in page.text["passkey"]
    assert "(extended)" not in page.text["position"]


def test_rows_without_intervals_are_drawn_and_dashed(run_dir):
    changed = results()
    for model in changed["models"].values():
        for row in [*model["nll_by_position"], *model["passkey"], *model["context_gain"]]:
            for key in [k for k in row if k.endswith(("low", "high")) or k == "difference"]:
                del row[key]
    write_json(run_dir / "eval" / "results.json", changed)
    page = Page(render(run_dir))
    assert "– to –" in re.sub(r"\s+", " ", page.text["gain"])
    assert "changes by" not in page.text["gain"]


def test_models_without_a_training_have_their_names_and_windows_at_the_top(run_dir):
    changed = results()
    rows = changed["models"]
    changed["models"] = {"one": rows["base"], "two": rows["extended"]}
    changed["columns"] = {name: {"window": 4096} for name in changed["models"]}
    write_json(run_dir / "eval" / "results.json", changed | {"reference": "one", "judged": "two"})
    page = render(run_dir)
    assert '<p class="span">one <b>4,096</b> · two <b>4,096</b> tokens</p>' in page
    assert 'id="training"' not in page and "#training" not in page

"""Rows of mean losses over documents of unequal length, against numpy and scipy."""

import math

import numpy as np
import pytest
from scipy import stats

from ropewalk.eval.measure.loss_rows import mean_row, not_measurable, perplexity_row

VALUES = [np.array([1.0, 2.0, 3.0]), np.array([4.0]), np.empty(0), np.array([2.0, 2.0])]
UNITS = ["a", "b", "c", "d"]


def test_every_token_counts_once_and_a_document_without_tokens_nowhere() -> None:
    base = [values - 0.5 for values in VALUES]
    row = mean_row(UNITS, VALUES, base, seed=0)
    assert row["nll"] == pytest.approx(np.mean(np.concatenate(VALUES)))
    assert (row["n"], row["difference"]) == (3, pytest.approx(0.5))
    assert row["low"] < row["nll"] < row["high"]
    assert row["difference_low"] == pytest.approx(0.5) == row["difference_high"]


def test_the_interval_of_few_equal_documents_is_students() -> None:
    """Below eight units; scipy's interval of their means."""
    rng = np.random.default_rng(0)
    values = [rng.normal(size=10) for _ in range(5)]
    row = mean_row([*"abcde"], values, None, seed=0)
    means = [part.mean() for part in values]
    expected = stats.t.interval(0.95, 4, np.mean(means), stats.sem(means))
    assert (row["low"], row["high"]) == pytest.approx(expected, rel=1e-6)
    assert "difference" not in row


def test_windows_of_one_document_are_one_unit_without_an_interval() -> None:
    row = mean_row(["a", "a"], [np.array([1.0]), np.array([2.0, 3.0])], None, 0, "gain")
    assert row == {"gain": 2.0, "low": None, "high": None, "n": 1}


def test_perplexity_has_the_interval_of_the_loss_and_differences_in_nats() -> None:
    row = {"nll": 2.0, "low": 1.0, "high": None, "n": 3, "difference": 0.1}
    made = perplexity_row(row, "longppl")
    assert made["longppl"] == math.exp(2) and made["low"] == math.e and made["high"] is None
    assert (made["nll"], made["difference"], made["n"]) == (2.0, 0.1, 3)
    assert perplexity_row({"nll": 1000.0, "low": None, "high": None})["perplexity"] == math.inf


def test_a_value_that_cannot_be_measured_is_null_with_its_reason() -> None:
    row = not_measurable("gain", "no second document", unit="document")
    expected = {"gain": None, "low": None, "high": None, "n": 0, "reason": "no second document"}
    assert row == {"unit": "document", **expected}

"""The calibrate stage: rotary settings chosen for one model by measurement, without training.

stage.py      the stage: search, report, rope.json       search.py     the loop over trials, its log
trial.py      candidates, trials, the objective          ramp.py       YaRN's borders, by Optuna
choice.py     which trial becomes the plan               evolution.py  LongRoPE's divisors
results.py    the content of results.json                candidate_model.py  the live model
"""

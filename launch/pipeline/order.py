"""The stages of each verb, in order, and the folder of each. Nothing heavy is imported."""

ORDER = ("rope", "data", "train", "eval", "report")
VERB_STAGES: dict[str, tuple[str, ...]] = {
    **{stage: ORDER[: number + 1] for number, stage in enumerate(ORDER)},
    "run": ORDER,
    "calibrate": ("rope", "data", "calibrate", "report"),
    "export": ("rope", "data", "train", "export"),
}
WITHOUT_TRAINING = ("rope", "data", "eval", "report")
"""Of a command that measures `eval.models` alone."""
FOLDERS = {
    "data": "data",
    "train": "train",
    "eval": "eval",
    "report": "report",
    "calibrate": "calibration",
    "export": "export",
}
"""The folder of each stage that has a manifest of its own."""

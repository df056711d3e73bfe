"""The thirteen configurations of RULER, and the groups that a suite names."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Configuration:
    """What a question hides and asks."""

    name: str
    family: str
    """niah, vt, cwe, fwe or qa."""
    budget: int
    """Tokens of the answer that are decoded."""
    every: bool = True
    """The score: the share of the references that is found; False: whether any is."""
    haystack: str = ""
    """noise, prose, or needles: lines of the same form as the one that is asked for."""
    keys: str = "words"
    values: str = "numbers"
    """words, numbers (seven digits) or uuids."""
    inserted: int = 1
    """Keys in the haystack that a question may ask for."""
    asked: int = 1
    values_each: int = 1
    """Values of a key."""
    data: str = ""
    """The file that it needs from the user: squad or hotpotqa."""


def _niah(name: str, haystack: str, **more: int | str) -> Configuration:
    return Configuration(f"niah_{name}", "niah", 128, haystack=haystack, **more)  # type: ignore[arg-type]


ALL = {
    configuration.name: configuration
    for configuration in (
        _niah("single_1", "noise"),
        _niah("single_2", "prose"),
        _niah("single_3", "prose", values="uuids"),
        _niah("multikey_1", "prose", inserted=4),
        _niah("multikey_2", "needles"),
        _niah("multikey_3", "needles", keys="uuids", values="uuids"),
        _niah("multivalue", "prose", values_each=4),
        _niah("multiquery", "prose", inserted=4, asked=4),
        Configuration("vt", "vt", 30, haystack="noise"),
        Configuration("cwe", "cwe", 120),
        Configuration("fwe", "fwe", 50),
        Configuration("qa_1", "qa", 32, every=False, data="squad"),
        Configuration("qa_2", "qa", 32, every=False, data="hotpotqa"),
    )
}

GROUPS = {
    "smoke": ("niah_single_1", "vt"),
    "progress": ("niah_single_2", "niah_multikey_2", "niah_multikey_3", "niah_multivalue", "vt"),
    "all": tuple(ALL),
}


def chosen(names: list[str]) -> tuple[Configuration, ...]:
    """Those that a setting names, alone or by their group, in RULER's order."""
    singles = {single for name in names for single in GROUPS.get(name, (name,))}
    return tuple(configuration for name, configuration in ALL.items() if name in singles)

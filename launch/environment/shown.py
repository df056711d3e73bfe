"""Values as a report shows them: no key, no password, no name of the user."""

import getpass
import os
import re

HIDDEN = "(set, not shown)"
SECRET_NAME = re.compile(
    r"TOKEN(?!IZER)|KEY|SECRET|PASSW|PASSPHRASE|CRED|AUTH|COOKIE|SESSION|SIGNATURE", re.IGNORECASE
)
_PREFIXES = r"\b(hf_|sk-|gh[opsu]_|github_pat_|glpat-|xox[abp]-|AKIA|ASIA|AIza|eyJ|ya29\.)[\w-]{8,}"
SECRET_VALUE_PREFIX = re.compile(rf"{_PREFIXES}|\bbearer\s+[\w.-]{{8,}}|-----BEGIN", re.IGNORECASE)
"""What is a secret wherever it stands."""
SECRET_VALUE = re.compile(
    rf"{_PREFIXES}"
    r"|(token|key|secret|passw\w*|pwd|credentials?|auth\w*)\s*[=:]\s*\S"
    r"|\b(bearer|basic)\s+\S"
    r"|-----BEGIN",
    re.IGNORECASE,
)
OPAQUE = re.compile(r"(?<![\w/.-])(?=[\w+-]*\d)(?=[\w+-]*[A-Za-z])[\w+-]{24,}={0,2}(?![\w/.-])")
"""A long word of letters and digits that is no path: what keys look like."""
NOT_OPAQUE = ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES")
"""GPUs by their long names."""
USER_OF_URL = re.compile(r"(\w+://)[^/@\s]+@")
QUERY_OF_URL = re.compile(r"(\w+://[^\s?#]*)[?#]\S*")
LONGEST = 300


def value(name: str, text: str) -> str:
    """An environment variable's value."""
    if not text:
        return "(set, empty)"
    text = USER_OF_URL.sub(r"\1***@", text)
    is_opaque = name not in NOT_OPAQUE and OPAQUE.search(text)
    if SECRET_NAME.search(name) or SECRET_VALUE.search(text) or is_opaque:
        return HIDDEN
    return path(QUERY_OF_URL.sub(r"\1?***", text))


def path(text: str) -> str:
    """A text with the home folder as `~`, the user's name as `$USER`, and on one line."""
    text = without_user(text)
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return shown if len(shown) <= LONGEST else f"{shown[: LONGEST - 3]}..."


def without_user(text: str) -> str:
    """A text with the home folder as `~` and the user's name as `$USER`."""
    home = os.path.expanduser("~")
    if len(home) > 1 and home != "~":
        text = re.sub(rf"(?<![\w.-]){re.escape(home)}(?![\w.-])", "~", text)
    user = _user()
    if len(user) > 1 and user != "root":
        text = re.sub(rf"(?<![\w.-]){re.escape(user)}(?![\w-])", "$USER", text)
    return text


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a number without a name, as in containers
        return ""

"""The code that made a result: commit, changes beside it, and the digest of all Python files."""

import hashlib
import re
from typing import Any

from ropewalk.launch.environment.answers import NoAnswerError, output_of
from ropewalk.launch.environment.shown import SECRET_VALUE_PREFIX, USER_OF_URL, without_user
from ropewalk.launch.pipeline.versions import ROOT, code_digest, versions
from ropewalk.launch.reproduce.settings import HOMES

LARGEST_DIFF = 256 << 10
"""Bytes of a diff that is recorded; of a larger one its digest and its files."""
MOST_NEW_FILES = 50
"""Files that git does not know, and whose text belongs to the diff."""
NO_CHECKOUT = "not a git checkout"
HIDDEN_LINE = "(a line like a secret, not shown)"
ASSIGNED_SECRET = re.compile(
    r"(token|key|secret|passw\w*|pwd|passphrase|credentials?|auth\w*)[\w\"'\]]*\s*[=:]\s*"
    r"(?:[\"'][^\"'\s]{8,}[\"']|(?=\S*\d)[^\s\"'()\[\]{},]{12,}$)",
    re.IGNORECASE,
)
"""A name like token or key, and a text of its own behind it: no expression."""
OPAQUE_WORD = re.compile(
    r"(?<![\w/+-])(?:[0-9a-fA-F]{32,}"
    r"|(?=[\w/+-]*\d)(?=[\w/+-]*[a-z])(?=[\w/+-]*[A-Z])[A-Za-z0-9/+-]{28,}={0,2})(?![\w/+-])"
)
"""What keys look like: many hexadecimal digits, or digits and letters of both cases."""


def code() -> dict[str, Any]:
    """Version, digest of the files, and of a checkout its commit and its changes, whole."""
    known: dict[str, Any] = {"ropewalk": versions()["ropewalk"], "digest": code_digest()}
    if not (ROOT / ".git").exists():
        return known | {"commit": None, "reason": NO_CHECKOUT}
    try:
        commit = _git("rev-parse", "HEAD").strip()
        diff = _changes()
    except NoAnswerError as error:
        return known | {"commit": None, "reason": str(error)}
    return known | {"commit": commit} | described(diff)


def described(diff: str) -> dict[str, Any]:
    """The record of a diff: its text without secrets if it is small enough, and its digest."""
    if not diff:
        return {"changed": []}
    shown, hidden = without_secrets(diff)
    values: dict[str, Any] = {
        "changed": sorted(set(re.findall(r"^\+\+\+ b/(.+)$|^--- a/(.+)$", diff, re.M))),
        "diff_sha256": hashlib.sha256(diff.encode()).hexdigest(),
        "diff": shown,
        "hidden_lines": hidden,
    }
    values["changed"] = sorted({name for pair in values["changed"] for name in pair if name})
    if (size := len(shown.encode())) > LARGEST_DIFF:
        values |= {"diff": None, "reason": f"the diff has {size} bytes; {LARGEST_DIFF} are kept"}
    return values


def without_secrets(diff: str) -> tuple[str, int]:
    """The diff without lines that look like secrets, and their number; without the user's name."""
    lines, hidden = [], 0
    for line in diff.splitlines():
        if not line.startswith("index ") and is_secret(line):
            lines.append(f"{line[:1]}{HIDDEN_LINE}")
            hidden += 1
        else:
            lines.append(without_user(HOMES.sub(r"/\1/USER", line)))
    return "\n".join(lines) + "\n", hidden


def is_secret(line: str) -> bool:
    """Whether a line looks as if it held a key, a token or a password."""
    patterns = (SECRET_VALUE_PREFIX, ASSIGNED_SECRET, OPAQUE_WORD, USER_OF_URL)
    return any(pattern.search(line) for pattern in patterns)


def _changes() -> str:
    """What differs from the commit, files that git does not know yet included."""
    diff = _git("diff", "HEAD", "--no-color", "--no-ext-diff", "--no-textconv", "--src-prefix=a/",
                "--dst-prefix=b/")  # fmt: skip
    new = _git("ls-files", "--others", "--exclude-standard", "-z").split("\0")
    return diff + "".join(_as_diff(name) for name in sorted(filter(None, new))[:MOST_NEW_FILES])


def _as_diff(name: str) -> str:
    """A new file as git would show it; of one that is no text, its name alone."""
    try:
        text = (ROOT / name).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return f"--- /dev/null\n+++ b/{name}\n(no text)\n"
    lines = text.splitlines()
    body = "".join(f"+{line}\n" for line in lines)
    return f"--- /dev/null\n+++ b/{name}\n@@ -0,0 +1,{len(lines)} @@\n{body}"


def _git(*words: str) -> str:
    return output_of(["git", "--no-optional-locks", "-C", str(ROOT), *words])

"""Answers RULER's questions from the text of a prompt and the wording's templates alone."""

import re
from collections import Counter

from ropewalk.eval.ruler.wording import Wording


def solve(text: str, family: str, wording: Wording) -> list[str]:
    """The answers, in the order of the question or of the text. `family`: niah, vt, cwe, ..."""
    if family == "niah":
        return niah(text, wording)
    template = {"vt": wording.vt, "cwe": wording.cwe, "fwe": wording.fwe, "qa": wording.qa}[family]
    prefix = getattr(wording, f"{family}_prefix")
    context, asked = read(text, template, prefix)
    if family == "vt":
        return chain(context, asked["query"], wording)
    if family == "cwe":
        items = re.findall(r"\d+\. (.+?)(?= \d+\. |$)", context)
        return [word for word, _ in Counter(items).most_common(10)]
    if family == "fwe":
        counts = Counter(word for word in context.split() if word.strip("."))
        return [word for word, _ in counts.most_common(3)]
    return look_up(context, asked["query"])


def niah(text: str, wording: Wording) -> list[str]:
    for template, prefix in (
        (wording.niah_one, wording.niah_one_prefix),
        (wording.niah_many, wording.niah_many_prefix),
    ):
        if found := read(text, template, prefix, optional=True):
            context, asked = found
    keys = [key.removeprefix("and ") for key in asked["query"].split(", ")]
    pairs = [(m["key"], m["value"]) for m in re.finditer(pattern(wording.needle), context)]
    return [value for key in keys for other, value in pairs if other == key]


def chain(context: str, value: str, wording: Wording) -> list[str]:
    """Every variable that has the value, by following the lines in their order."""
    held: list[str] = []
    steps = [*lines(wording.vt_value, context), *lines(wording.vt_copy, context)]
    for match in sorted(steps, key=lambda match: match.start()):
        step = match.groupdict()
        new = step["name"] not in held
        if new and (step.get("value") == value or step.get("other") in held):
            held.append(step["name"])
    return held


def look_up(context: str, question: str) -> list[str]:
    """Of the questions that tests/helpers/ruler_suite.py makes."""
    if emblem := re.search(r"emblem of (\w+)", question):
        found = re.search(rf"emblem of {emblem[1]} is a (\w+)", context)
        return [found[1]] if found else []
    bridge = re.search(r"builder of (\w+)", question)
    assert bridge
    person = re.search(rf"{bridge[1]} was built by (\w+)", context)
    town = re.search(rf"{person[1]} was born in (\w+)", context) if person else None
    return [town[1]] if town else []


def read(
    text: str, template: str, prefix: str, optional: bool = False
) -> tuple[str, dict[str, str]] | None:
    """The context and what is asked, of the last task in a text that ends with the prefix."""
    head, tail = template.split("{context}")
    end = list(re.finditer(pattern(tail + prefix) + r"\Z", text))
    start = [m.end() for m in re.finditer(pattern(head), text)]
    if not end or not start:
        assert optional, text[-300:]
        return None
    return text[start[-1] : end[-1].start()], end[-1].groupdict()


def lines(template: str, context: str) -> list[re.Match[str]]:
    return list(re.finditer(rf"^{pattern(template.strip())}\s*$", context, re.MULTILINE))


def pattern(template: str) -> str:
    """A regular expression; a field that comes twice is the same text."""
    seen: set[str] = set()
    parts = re.split(r"\{(\w+)\}", template)
    result = ""
    for number, part in enumerate(parts):
        if number % 2 == 0:
            result += re.escape(part)
        elif part in seen:
            result += f"(?P={part})"
        else:
            seen.add(part)
            result += (
                rf"(?P<{part}>[^\n.?:]+?)" if part in ("kind", "kinds") else f"(?P<{part}>.+?)"
            )
    return result

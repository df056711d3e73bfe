"""One measurement in a process of its own: `python child.py MODULE:FUNCTION ARGUMENTS_JSON ANSWER_FILE`."""

import importlib
import json
import sys
from pathlib import Path


def main(target: str, arguments: str, answer: str) -> None:
    module, function = target.split(":")
    found = getattr(importlib.import_module(module), function)(**json.loads(arguments))
    Path(answer).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])

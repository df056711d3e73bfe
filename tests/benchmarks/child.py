"""One measurement in a new process: `child.py MODULE:FUNCTION ARGUMENTS_JSON ANSWER_FILE`."""

import importlib
import json
import sys
from pathlib import Path


def main(target: str, arguments: str, answer: str) -> None:
    module, function = target.split(":")
    result = getattr(importlib.import_module(module), function)(**json.loads(arguments))
    Path(answer).write_text(json.dumps(result))


if __name__ == "__main__":
    main(*sys.argv[1:])

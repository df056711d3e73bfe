"""A fault in functions that are loaded: their code is replaced and nothing is imported again."""

import gc
import importlib
import types
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from faults import Mutant, files_of


def codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """A module's code and every one inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from codes(constant)


class LiveFunctions:
    """The functions of the core that are loaded in this process, by file."""

    def __init__(self, folder: Path) -> None:
        for path in files_of():
            importlib.import_module("ropewalk." + path.removesuffix(".py").replace("/", "."))
        self.by_file: dict[str, list[types.FunctionType]] = defaultdict(list)
        for function in gc.get_objects():
            if isinstance(function, types.FunctionType):
                self.by_file[function.__code__.co_filename].append(function)
        self.root = folder / "import" / "ropewalk"

    def put(self, mutant: Mutant, text: str) -> None:
        """Give the functions of the mutant's file the code that `text` has for them."""
        file = str(self.root / mutant.path)
        code = {(c.co_qualname, c.co_firstlineno): c for c in codes(compile(text, file, "exec"))}
        for function in self.by_file[file]:
            old = function.__code__
            function.__code__ = code.get((old.co_qualname, old.co_firstlineno), old)

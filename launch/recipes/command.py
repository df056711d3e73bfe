"""`ropewalk recipes [NAME]`."""

import argparse
import json
from pathlib import Path

from ropewalk.conf.errors import ConfigError
from ropewalk.launch.recipes import listing, table


def run(arguments: argparse.Namespace) -> None:
    """Print all recipes or one card, or write a twin. Raises: ConfigError."""
    name = arguments.name
    if arguments.twin:
        _write_twin(name, arguments.twin)
    elif not name:
        rows = listing.rows()
        print(json.dumps(rows, indent=1) if arguments.json else listing.as_text(rows))
    else:
        from ropewalk.launch.recipes.bases import card_of

        card, row = card_of(name), table.read().get(name)
        shown = listing.card_as_json if arguments.json else listing.card_as_text
        print(shown(name, card, row))


def _write_twin(name: str, target: str) -> None:
    if not name:
        raise ConfigError(f"--twin is {target}; it goes with one recipe; ropewalk recipes NAME")
    folder = Path(target).expanduser()
    if folder.is_dir() and any(folder.iterdir()):
        raise ConfigError(f"--twin is {target}; it must be a new or empty folder; name another")
    from ropewalk.launch.cli import load_libraries
    from ropewalk.launch.recipes.bases import card_of

    card_of(name)

    load_libraries()
    from ropewalk.launch.recipes import twin

    path = twin.write(name, folder)
    print(f"wrote {path}")
    print(f"cd {target} && ropewalk run --config-dir . recipe={path.stem}")

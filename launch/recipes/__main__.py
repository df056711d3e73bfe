"""`python -m ropewalk.launch.recipes [NAME ...]`: table.json and docs/recipes.md anew (minutes).

Without names all recipes are planned; with names only these, and the other rows stay.
"""

import sys
from collections.abc import Sequence

from ropewalk.conf import recipe_card
from ropewalk.launch.recipes import page, table


def main(names: Sequence[str]) -> None:
    rows = table.read() if table.FILE.is_file() else {}
    rows = {name: row for name, row in rows.items() if name in recipe_card.names()}
    chosen = list(names) or recipe_card.names()
    for number, name in enumerate(chosen, 1):
        rows[name] = table.row(name)
        table.write(rows)
        hours = rows[name]["gpu_hours"]["likely"]
        print(f"{number} of {len(chosen)}: {name}, {hours:,.0f} GPU-hours", flush=True)
    print(f"wrote {table.FILE}")
    if page.FILE.parent.is_dir():
        page.write(rows)
        print(f"wrote {page.FILE}")


if __name__ == "__main__":
    main(sys.argv[1:])

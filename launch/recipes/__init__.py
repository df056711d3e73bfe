"""The field's recipes: what there is, what each rests on, costs and how to try it.

command.py     `ropewalk recipes [NAME]`
listing.py     the table and a card, for a terminal or a program
table.py       table.json: a row a recipe, read by the listing, held current by a test
costs.py       a recipe planned on its card's machine
bases.py       a recipe over the published config.json of its base, without the hub
page.py        docs/recipes.md
twin.py        a recipe made small, to run on a laptop
twin_files.py  its base and its documents
__main__.py    writes table.json and docs/recipes.md anew

The cards are conf/card/; their form is conf/recipe_card.py.
"""

"""The report page, made from a run folder's artifacts alone; imports no stage and no torch.

page.py       reads the artifacts, renders report.html.j2, writes the figures as files
answers.py    the five questions at the top
results.py    columns of the evaluation, tables of any task
anchors.py    published numbers of eval/anchors.yaml, beside the same protocol only
sentences.py  sentences that the numbers decide
formats.py    numbers as text, the Jinja templates
figures/      inline SVG and HTML drawings
"""

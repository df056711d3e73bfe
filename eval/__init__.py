"""The eval stage: the same measurements of base, rescaled and extended model, and the report page.

    preflight.py  lengths and held-out text, checked before the first long stage
    stage.py    the stage: measures in this process or in ranks, writes eval/results.json
    ranks.py    starts the ranks that share the windows and questions
    __main__.py `python -m ropewalk.eval FOLDER`: one rank, as the launcher starts it
    worker.py   one rank
    requests.py what a model is asked (texts, prompts) and answers (losses, replies)
    engine_sp/  the same over the ranks that share a sequence
    engine_vllm/  prompts that vLLM decodes, in a process of its own
    engine/     one model that answers requests: forward passes, cache, decoding
    measure/    models to compare, results on disk, statistics
    ruler/      RULER's questions: what is hidden, prompts that fit, scores
    tasks/      what is measured, one file a task
    report/     the page; figures/ holds its drawings
    calibrate/  the search of rotary settings before training

A new measurement is one file in tasks/ (see tasks/task.py) and one line in the registry of
tasks/__init__.py. The page then shows its figure, its sentence and its rows without a change.
A new figure of another artifact is one file in report/figures/, one line in `page.derived`,
and its place in report/report.html.j2.
"""

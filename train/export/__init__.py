"""The export stage: a trained model for servers, and what each engine computes from it.

stage.py        writes hf/, the GGUF file, SERVING.md and serving.json
hf_folder.py    the checkpoint, with config.json in the new and the legacy key style
formulas.py     the table that each engine computes from `rope_parameters`
engines.py      the engines: version, formula, and the keys that each reads
compare.py      each engine's table against the plan's
gguf_file.py    the GGUF file
gguf_rope.py    its rotary keys
gguf_tokens.py  its tokenizer
model_card.py   README.md: metadata with the evaluation as model-index
card_sections.py  its text: rope, data, licences, what it takes to repeat the run
benchmarks.py   .eval_results/ for benchmarks that are registered on the hub
push.py         hf/ to a repository of the hub
handoff.py      the report as values
serving.py      the report as Markdown
"""

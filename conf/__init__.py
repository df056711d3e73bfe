"""Settings: dataclasses with type, default, rule and doc, and the YAML that chooses values.

Every other package imports this one; it imports none of them.

schema.py     Config, all sections         train.py, optimizer.py, memory.py, lora.py, metrics.py
rules.py      setting(...), the walker     data.py, sources.py, source_ids.py
                                           data_mixture.py, cleaning.py
check.py      a composed Config, checked   model.py, eval.py, eval_models.py, phases.py, export.py
declared.py   type of a key, nearest key   eval_ruler.py, eval_retrieval.py, eval_language.py
                                           eval_gates.py, eval_short_context.py, eval_vllm.py
settings.py   rows of `ropewalk settings`  rope_methods/  one class a RoPE method
renamed.py    former names of settings     artifacts/     the stage contract
errors.py     errors and exit codes        log.py         the logger of rank 0
hardware_file.py   what a device reaches   hardware/      a file a device, figures with source
launchers.py  who starts the command       launch/        a file a launcher
recipe_card.py     what a recipe rests on  card/          a file a recipe, origins of its numbers
published.py       published values of a model, of a card or of eval/anchors.yaml
launch_slurm.py  a job's requests          cluster/       a site's facts
launch_kubernetes.py  pods, and SkyPilot's nodes
sweeps.py     several runs of one command
recipe/, rope/, mixture/, suite/, sweep/, config.yaml   what Hydra composes
"""

"""Each bound of a setting, written by hand: the value at the border passes, the next is refused.

`[0, 1)`: 0 is the least value, and the next number below 1 the greatest.
"""

import math
import re

import pytest

from ropewalk.conf import declared, settings
from ropewalk.conf.rules import Rule

BORDERS = """
seed [0, 9223372036854775807]
model.scratch.vocab_size [260, inf)
model.scratch.hidden_size [1, inf)
model.scratch.intermediate_size [1, inf)
model.scratch.num_hidden_layers [1, inf)
model.scratch.num_attention_heads [1, inf)
model.scratch.num_key_value_heads [1, inf)
model.scratch.max_position_embeddings [1, inf)
model.scratch.rope_theta (1, inf)
rope.factor [1, inf)
rope.target_length [1, inf)
rope.original_max_position_embeddings [1, inf)
rope.max_position_embeddings [1, inf)
rope.rope_theta (1, inf)
rope.alpha [1, inf)
rope.beta_fast (0, inf)
rope.beta_slow (0, inf)
rope.attention_factor (0, inf)
rope.mscale (0, inf)
rope.mscale_all_dim (0, inf)
rope.low_freq_factor (0, inf)
rope.high_freq_factor (0, inf)
rope.long_factor (0, inf)
rope.short_factor (0, inf)
rope.rope_theta (1, inf)
data.length_weights [0, 1000]
data.buckets [0, inf)
data.max_epochs [1, inf)
data.seq_len [2, inf)
data.heldout_share [0, 1)
data.min_piece [1, inf)
data.max_document_bytes [1, inf)
data.tokenizer_threads [1, inf)
data.sources.NAME.min_len [1, inf)
data.sources.NAME.max_len [1, inf)
data.sources.NAME.length_weights [0, 1000]
data.sources.NAME.weight [0, inf)
data.duplicates.threshold [0.3, 1]
data.duplicates.ngram [1, inf)
data.duplicates.permutations [16, inf)
data.contamination.ngram [1, inf)
data.contamination.share [0, 1)
data.pose.chunks [2, inf)
train.steps [0, inf)
train.micro_batch_size [1, inf)
train.prefetch [0, inf)
train.sp_size [1, inf)
train.optimizer.lr (0, inf)
train.optimizer.betas [0, 1)
train.optimizer.eps [0, inf)
train.optimizer.weight_decay [0, inf)
train.optimizer.gradient_clipping [0, inf)
train.optimizer.layer_lr_decay (0, 1]
train.optimizer.lr_groups[].lr_scale (0, inf)
train.schedule.warmup_steps [0, inf)
train.schedule.min_lr_ratio [0, 1]
train.loss.z_loss [0, inf)
train.loss.router_aux_loss_coef [0, inf)
train.lora.rank [0, inf)
train.lora.alpha (0, inf)
train.lora.dropout [0, 1)
train.memory.tile_mlp_tokens [0, inf)
train.memory.zero_hpz_size [2, inf)
train.memory.zero_reduce_bucket_size [1, inf)
train.memory.zero_prefetch_bucket_size [0, inf)
train.memory.zero_max_live_parameters [0, inf)
train.memory.zero_max_reuse_distance [0, inf)
train.memory.zero_persistence_threshold [0, inf)
train.checkpoint.interval_steps [0, inf)
train.checkpoint.keep_last [1, inf)
train.checkpoint.keep_every_steps [0, inf)
train.stability.spike_window_steps [4, inf)
train.stability.spike_threshold_mads (0, inf)
train.stability.max_skips [0, inf)
train.metrics.group_norms_every [0, inf)
train.metrics.peak_tflops (0, inf)
train.validation.interval_steps [0, inf)
train.validation.windows [1, inf)
train.validation.windows_per_document [1, inf)
train.validation.haystacks [1, inf)
train.validation.positions [1, inf)
train.validation.length [2, inf)
train.launcher.ranks_per_node [1, inf)
train.launcher.master_port [1024, 65535]
train.launcher.start_timeout_s (0, 3600]
train.launcher.hang_timeout_s [0, inf)
train.launcher.first_step_extra_s [0, inf)
eval.length [2, inf)
eval.windows [1, inf)
eval.windows_per_document [1, inf)
eval.seed [0, 9223372036854775807]
eval.passkey_lengths [2, inf)
eval.passkey_depths [0, 1]
eval.passkey_tries [0, inf)
eval.json_kv.lengths [2, inf)
eval.json_kv.haystacks [1, inf)
eval.json_kv.positions [5, inf)
eval.json_kv.shots [0, inf)
eval.json_kv.digits [2, 18]
eval.json_kv.max_new_tokens [0, inf)
eval.needle.lengths [2, inf)
eval.needle.haystacks [1, inf)
eval.needle.needles [2, 45]
eval.needle.single_haystacks [0, inf)
eval.needle.single_depths [0, 1]
eval.multi_document_qa.lengths [2, inf)
eval.multi_document_qa.haystacks [1, inf)
eval.multi_document_qa.positions [5, inf)
eval.multi_document_qa.shots [0, inf)
eval.context_gain_tokens [2, inf)
eval.ruler.samples [1, inf)
eval.ruler.lengths [64, inf)
eval.ruler.shots [0, 8]
eval.sliding.windows [2, inf)
eval.sliding.stride [1, inf)
eval.sliding.documents [1, inf)
eval.sliding.max_tokens [2, inf)
eval.yarn_compat.lengths [2, inf)
eval.yarn_compat.points [1, inf)
eval.yarn_compat.documents [1, inf)
eval.yarn_compat.min_tokens [1, inf)
eval.yarn_compat.windows [2, inf)
eval.yarn_compat.stride [1, inf)
eval.yarn_compat.sliding_documents [1, inf)
eval.yarn_compat.sliding_min_tokens [1, inf)
eval.yarn_compat.max_tokens [2, inf)
eval.pi_compat.windows [2, inf)
eval.pi_compat.stride [1, inf)
eval.pi_compat.documents [1, inf)
eval.pi_compat.min_tokens [1, inf)
eval.pi_compat.max_tokens [2, inf)
eval.swapped_gain.kept_tokens [1, inf)
eval.far_copy.k [1, 64]
eval.far_copy.far [1, inf)
eval.longppl.windows [1, inf)
eval.longppl.short_context [1, inf)
eval.longppl.block [1, inf)
eval.longppl.gain [0, inf)
eval.longppl.loss (0, inf)
eval.longppl.min_key_tokens [1, inf)
eval.short_context.documents [1, inf)
eval.short_context.lm_eval.limit [1, inf)
eval.short_context.lm_eval.num_fewshot [0, inf)
eval.gates.inside_nats (0, inf)
eval.gates.short_nats (0, inf)
eval.gates.points (0, inf)
eval.gates.deciding [1, 5]
eval.batch_tokens [1, inf)
eval.sp_size [1, inf)
eval.vllm.tensor_parallel_size [1, inf)
eval.vllm.gpu_memory_utilization (0, 1]
eval.chunk_tokens [1, inf)
eval.ranks_per_node [1, inf)
calibrate.max_forward_passes [1, inf)
calibrate.windows [1, inf)
calibrate.report_windows [1, inf)
calibrate.length [2, inf)
calibrate.inside_weight [0, 1)
calibrate.population [4, inf)
launch.nodes [1, inf)
launch.port [1024, 65535]
launch.join_timeout_s (0, 86400]
launch.slurm.gpus_per_node [0, inf)
launch.slurm.cpus_per_task [1, inf)
launch.slurm.stop_signal_s [0, 65535]
launch.slurm.max_idle_attempts [1, inf)
launch.slurm.array_parallelism [1, inf)
launch.slurm.data.tasks [0, inf)
launch.slurm.data.cpus_per_task [1, inf)
launch.kubernetes.gpus_per_node [0, inf)
launch.kubernetes.max_restarts [0, inf)
launch.skypilot.disk_gb [1, inf)
sweep.pool [1, inf)
sweep.search.trials [1, inf)
sweep.search.minutes (0, inf)
sweep.search.gpu_hours (0, inf)
"""
TABLE = [line.split(" ", 1) for line in BORDERS.split("\n") if line]

PUBLISHED = {
    "rope.beta_fast": "32.0",  # YaRN, arXiv 2309.00071, section 3.2
    "rope.beta_slow": "1.0",
    "rope.low_freq_factor": "1.0",  # Llama 3.1's config.json
    "rope.high_freq_factor": "4.0",
    "model.scratch.rope_theta": "10000.0",  # RoFormer, arXiv 2104.09864, section 3.2.2
    "data.max_epochs": "4",  # Muennighoff et al., arXiv 2305.16264
    "data.pose.chunks": "2",  # PoSE, arXiv 2309.10400
    "data.contamination.share": "0.2",  # Llama 2, arXiv 2307.09288, appendix A.6
    "train.optimizer.betas": "[0.9, 0.95]",  # Llama 2, section 2.2
    "train.optimizer.eps": "1.0e-08",  # torch.optim.AdamW
    "train.optimizer.gradient_clipping": "1.0",  # Llama 2, section 2.2
}


def rule_of(key: str) -> tuple[Rule, type]:
    """The rule and the type of the numbers that it is for."""
    key = key.replace(".NAME.", ".a.").replace("[].", "[0].")
    kind = str(declared.type_of(key))
    return declared.field_of(key).metadata["rule"], float if "float" in kind else int


def beside(number: float, kind: type, direction: float) -> float:
    """The next number of a type: of floats the nearest, of whole numbers one more or less."""
    if kind is int:
        return int(number) + (1 if direction > 0 else -1)
    return math.nextafter(float(number), direction)


@pytest.mark.parametrize(("key", "interval"), TABLE, ids=[key for key, _ in TABLE])
def test_the_value_at_the_border_passes_and_the_next_is_refused(key: str, interval: str) -> None:
    rule, kind = rule_of(key)
    match = re.fullmatch(r"([\[(])(.+), (.+)([\])])", interval)
    assert match is not None
    for bracket, text, outwards in (
        (match[1], match[2], -math.inf),
        (match[4], match[3], math.inf),
    ):
        if text == "inf":
            assert rule.allows(kind(1e12)) and not rule.allows(math.inf)
            continue
        border = int(text) if text.isdecimal() else float(text)
        if bracket in "[]":
            assert rule.allows(kind(border)) and not rule.allows(beside(border, kind, outwards))
        else:
            assert not rule.allows(kind(border)) and rule.allows(beside(border, kind, -outwards))


def test_the_table_has_every_setting_with_a_bound() -> None:
    bounded = {r["name"] for r in settings.rows() if re.match("(at|above|below) ", r["rule"])}
    assert bounded == {key for key, _ in TABLE}


@pytest.mark.parametrize(("key", "default"), PUBLISHED.items(), ids=list(PUBLISHED))
def test_a_default_is_the_published_value(key: str, default: str) -> None:
    assert {r["default"] for r in settings.rows() if r["name"] == key} == {default}

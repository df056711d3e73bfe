"""LoRA by peft: put into the model in place, so that everything else sees the model it knows; saved whole, merged at the end."""

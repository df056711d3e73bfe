"""The scaling stage: methods -> plan -> config before construction -> proof on the live model."""

"""What the plan holds, counted and told."""

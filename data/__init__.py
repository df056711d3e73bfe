"""Documents -> token store -> plan -> sequences."""

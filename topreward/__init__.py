"""topreward: robot progress, read out of an open vision-language model in one pass."""

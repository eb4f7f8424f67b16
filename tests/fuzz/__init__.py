"""Targets for fuzzing: one for each format that comes from outside and each grammar that people write."""

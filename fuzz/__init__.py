"""Fuzzing: what is given bytes, what they begin as, and who changes them (README.md)."""

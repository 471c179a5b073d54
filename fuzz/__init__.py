"""Fuzzing: targets that take any bytes, seeds to change from, and a harness for atheris."""

"""Tests of the command line: input, output, signals, secrets."""

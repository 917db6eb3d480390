"""Tests of the whole: documents, wheel, house rules, Python interface, fuzzing."""

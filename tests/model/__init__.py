"""Tests of status words, rules and summaries."""

"""Tests of what is talked about: words, rules, summaries."""

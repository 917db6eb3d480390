"""The subjects: rules, status words, counts, limits. Standard library only."""

"""What is talked about: rules, words, counts, limits. Standard library only."""

"""What is checked before the first write."""

"""The work itself: scan, send, count, check again."""

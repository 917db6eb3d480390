"""The work itself: scan, send, count, look again."""

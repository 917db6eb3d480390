"""The Lua: found, expanded, registered, called with typed arguments; and what it answers."""

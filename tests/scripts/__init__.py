"""Tests of the Lua itself, and of finding and registering it."""

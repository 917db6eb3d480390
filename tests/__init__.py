"""Tests of luamigrate, against real servers."""

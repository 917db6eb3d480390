"""Tests of the verbs on real servers: small and large keys, one slot and two, guards and pace."""

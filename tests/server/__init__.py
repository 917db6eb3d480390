"""Tests of connections, clusters' nodes, Sentinels, TLS, and servers that lie or are lost."""

"""Who is at the other end: URLs, connections, one server or a cluster, and what goes wrong with them."""

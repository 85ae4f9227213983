"""Jobs on a cluster: what is sent there, by which way, and what came of it."""

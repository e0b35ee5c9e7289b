"""What a run will need, before it is started, and what its jobs ask a cluster for."""

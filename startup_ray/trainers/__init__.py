"""Training: models, programs, the loop, and the edge to Ray Train."""

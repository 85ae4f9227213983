"""GANs: both networks, their step, what is seen while they train, and how samples are judged."""

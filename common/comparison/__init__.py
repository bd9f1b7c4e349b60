"""Two sides of runs compared: reading them, whether they can be compared, the evidence, and how it is told."""

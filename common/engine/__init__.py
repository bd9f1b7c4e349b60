"""Training: what happens in a step, an epoch and a run, and how a run goes on where it was stopped."""

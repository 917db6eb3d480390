"""`make chaos`: migrations beside applications and faults, all drawn from a seed; and a judge of what is left."""

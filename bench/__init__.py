"""What `make bench` runs: ratios of things measured in turn, in one run, on one machine."""

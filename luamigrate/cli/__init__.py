"""The command line: options, what is printed, signals, the demo."""

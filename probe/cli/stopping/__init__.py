"""SIGTERM and Ctrl-C: a stage stops after its batch, on all processes."""

"""Configs and checkpoints that a command names: found, bounded and checked before anything is imported."""

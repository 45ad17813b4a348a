"""Checkpoints: how weights are named, read, written and averaged."""

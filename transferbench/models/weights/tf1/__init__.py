"""Checkpoints of TensorFlow 1: a reader of the file format, and the variables of the networks that are here."""

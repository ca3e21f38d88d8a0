"""Estimators: an episode's clip and instruction in, a Curve out."""

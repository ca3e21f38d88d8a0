"""Estimators: an episode's clip and instruction in, a Curve out.

topreward  log p(` True`) of every prefix, in one pass
gvl        percentages that the model writes
shared     what both are made with
"""

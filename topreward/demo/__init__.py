"""A tabletop that exists only in code: six tasks, six kinds of episode, true progress for every frame.

In: a seed. Out: episodes of a small robot arm with pictures, labels and true progress, as
`topreward.Episode`, as mp4 files or as a LeRobot dataset. Knows no model and no estimator.
"""

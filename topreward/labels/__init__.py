"""Measured curves → what training reads. Score once, derive many times.

In goes a run's folder; out come labels per frame and per episode, and files that other trainers read. Every label is a
cheap, pure function of the curves: it can be made again in seconds with another normalisation, horizon or format.
Loads no model, opens no video, and changes no curve.

    signals   arrays in, arrays out: advantages, weights, indicators
    anchors   where progress is 0 and 1 over a dataset
    audit     whether labels follow the clock
    kept      what is kept of a measured episode
    settings  the choices that change a label
    derive    what is taken over the dataset, then frame by frame
    review    which episodes deserve a look
    tables    frames.parquet, episodes.parquet
    write     all files of an estimator's labels
    export    the same for LeRobot, RLinf and tables
"""

"""A job over episodes: what is measured of each, by whom, and where it is kept, so that it can go on.

In go episodes and whatever scores a clip; out comes a Measured per episode, whole on disk. An episode that fails is
one too, with its error. What is made of them is the business of the rooms above.

    inputs    which episodes: the words of a command line
    plan      what is measured: estimators, controls
    frames    an episode's frames, decoded and resized once
    controls  the videos and instructions that tell progress from its look-alikes
    scorers   clips and instructions in, Curves out: the models, behind one interface
    episode   what was read from one episode
    measure   episodes measured: all estimators, all controls
    derive    estimators that are computed from another one's curves
    identity  what tells an episode, a model or a curve from another
    folder    what was measured, on disk: whole files, resumable
    stored    the same folder, read by those who do not go on in it
    engine    how a job is carried out
    ahead     decoder processes
    here      episodes measured in this process
    workers   episodes over several processes
    on_ray    episodes over a Ray cluster
    leases    several runs in one folder
    run       the loop over episodes
"""

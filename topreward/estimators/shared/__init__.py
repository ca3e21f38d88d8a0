"""What all estimators are made with: how a checkpoint is asked for, how much is decoded at once, which texts pass."""

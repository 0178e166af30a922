"""Filter pruning of whole convolutional networks."""

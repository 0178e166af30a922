"""What the experiments are made of: options, runs through the sweep, results, and what is said of them."""

"""Training as all small models share it: the loop, its learning rate and time limit, Muon, the average of weights, what is on disk."""

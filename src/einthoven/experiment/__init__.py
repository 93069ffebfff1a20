"""One experiment from a recipe to its numbers: train, predict, calibrate, evaluate."""

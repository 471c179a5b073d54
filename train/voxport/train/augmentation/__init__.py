"""Changed copies of utterances: for training, and for calibration over the conditions that a model will meet."""

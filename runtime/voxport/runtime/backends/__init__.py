"""What runs a model file: one package an engine, and what they share."""

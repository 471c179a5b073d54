"""Export: checkpoint → artefact, and the proof that both give the same answers."""

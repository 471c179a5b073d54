"""People who are enrolled without training: search, decision, calibration, files."""

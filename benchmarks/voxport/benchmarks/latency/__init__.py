"""Latency and throughput of models, in rounds."""

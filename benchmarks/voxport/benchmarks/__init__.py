"""Measures artefacts against the network that they came from, in a form that a reader can check.

`latency.measure` runs a comparison, `report.LatencyReport` is its JSON document, `chart` draws it.
"""

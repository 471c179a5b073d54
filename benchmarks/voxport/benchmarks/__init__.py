"""Measures artefacts against the network that they came from, in a form that a reader can check.

`latency.runner.measure` runs a comparison, `latency.report.LatencyReport` is its JSON document, `latency.chart`
draws it.
"""

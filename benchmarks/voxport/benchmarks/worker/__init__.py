"""The process that times one back end, and its driver."""

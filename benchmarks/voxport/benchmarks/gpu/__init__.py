"""One run that measures all there is to measure on a GPU."""

"""An HTTP service: who speaks, who speaks when, and who is enrolled; for people, programs and KServe's clients."""

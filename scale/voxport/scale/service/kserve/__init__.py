"""KServe's inference protocol, version 2, over HTTP and gRPC: what tritonclient and KServe's own clients speak."""

"""edgeproxy beside its peers, in a lab of three nodes: ``python -m benchmarks.proxy [--quick]``, as root."""

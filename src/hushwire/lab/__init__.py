"""Namespaces, peers, DNS zones, captures: the demo, the attacks, the interop runs, the benchmarks."""

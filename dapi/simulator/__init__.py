"""The other sides, simulated on real sockets: for the demo, the tests and the benchmarks."""

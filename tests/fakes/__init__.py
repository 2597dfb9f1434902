"""What the tests talk to instead of the world: a fake upstream, a raw client, a real sidecar, a real Redis."""

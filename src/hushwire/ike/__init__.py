"""IKEv2 (RFC 7296) sans-I/O: one module per exchange, each a pair of coroutines that reads as the RFC does."""

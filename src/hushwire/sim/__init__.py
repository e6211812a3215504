"""sim: a deterministic internet in virtual time: the same seed is the same run, to the octet."""

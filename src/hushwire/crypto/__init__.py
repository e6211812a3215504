"""What the transforms compute, over pyca/cryptography: one row per algorithm."""

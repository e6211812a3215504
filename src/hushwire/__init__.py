"""hushwire: IPsec for hosts that were never introduced."""

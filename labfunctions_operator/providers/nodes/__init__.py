"""Where nodes come from: one small protocol, and a provider for each kind of pool."""

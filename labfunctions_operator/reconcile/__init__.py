"""Pure decisions: what an object needs next, from what exists now."""

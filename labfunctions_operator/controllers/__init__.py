"""What turns decisions into action: the keyed queue and the executor of plans."""

"""The pure core: what happened, what may be, what should be. No await, no clock, no SDK; the standard library only."""

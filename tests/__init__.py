"""Tests: flat, one file per module; `fakes` and `examples` are what they share."""

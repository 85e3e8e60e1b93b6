"""Layers that two models use unchanged."""

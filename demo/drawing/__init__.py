"""Procedural pictures: surfaces, objects and local defects."""

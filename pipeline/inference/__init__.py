"""Scoring single images, and thresholds from normal ones."""

"""Facility location by greedy selection: the engines, and which one a group takes."""

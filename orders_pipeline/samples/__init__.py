"""Samples: order files to try things with: synthetic ones, and real ones with their cells masked.

Nothing here is part of a batch's way.
"""

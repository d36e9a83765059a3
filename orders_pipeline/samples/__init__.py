"""Samples: order files to try things with: synthetic ones, and real ones with their cells masked.

No batch needs any of it.
"""

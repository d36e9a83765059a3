"""System: what is set, started and opened: settings, embedded servers, the parts put together, errors shown safely.

`composition.py` is the one place where parts are made; use cases are handed what they need.
"""

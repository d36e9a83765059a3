"""Security: personal values encrypted, and the keys for it, also those of KMS.

When keys are replaced is a matter of `upkeep/`; files are encrypted in `infrastructure/storage/` with the same cipher.
"""

"""Clients: what each has agreed to send, read from the clients' file: columns and names, encodings, file numbers.

What a file really holds is found out in `intake/`.
"""

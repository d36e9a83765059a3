"""Reports: what goes back to clients and operators: rejected rows, error lists, the summary of a batch, a preview.

What the codes say is in `records/rejections.py`; how a terminal shows it in `cli/`.
"""

"""Services: the order platform's Payment and Notification services how they are called, at which rate, and when not.

What is sent, to whom and when, and what is written down about it, belongs in `settlement/`.
"""

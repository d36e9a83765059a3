"""Services: the order platform's Payment and Notification services as they are called, paced and left alone when they fail.

What is sent, to whom and when, and what is written down about it, belongs in `settlement/`.
"""

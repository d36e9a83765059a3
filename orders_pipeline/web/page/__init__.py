"""The page, for a person with a file: it is sent, watched, corrected and looked up in a browser, in Japanese or English.

Written by the server, with a little script that sends files and renews parts of what is shown. What a batch is and may
have done to it is asked of the same functions as the API's answers.
"""

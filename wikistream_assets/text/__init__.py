"""Text from strangers made harmless: to print, to log, to send.

Belongs here: what works on strings alone. Does not belong here: the same for columns of a DataFrame (``transforms``,
``streams``).
"""

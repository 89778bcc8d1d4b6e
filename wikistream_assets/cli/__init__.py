"""The command ``wikistream``: one module per group of commands.

Belongs here: arguments, exit codes, what is printed. Does not belong here: the work itself.
"""

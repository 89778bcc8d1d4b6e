"""Who reads what is published, for people: the health of the pipeline, the report on quality.

Does not belong here: what writes to a table, how any table is read (``lake``).
"""

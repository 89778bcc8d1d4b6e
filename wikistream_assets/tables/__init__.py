"""What a table contract is, and the contracts of the audit trail, which every stream shares.

Belongs here: ``TableSpec`` and what follows from it alone. Does not belong here: the tables of a stream (``streams``), how they
are stored (``lake``).
"""

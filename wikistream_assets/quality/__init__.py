"""What a rule is and how rules are measured: Deequ, profiles, drift, expectations of volume and mix, the quarantine's budget.

Belongs here: what would judge any table. Does not belong here: the rules of a stream (``streams``), catalogs, files, clocks.
"""

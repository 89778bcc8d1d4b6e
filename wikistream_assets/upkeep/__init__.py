"""What is done to tables besides: maintenance, masking, rollback, backup, relocation, backfill, redrive.

Belongs here: what a schedule or a person asks for. Does not belong here: what every cycle does (``engine``).
"""

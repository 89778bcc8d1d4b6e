"""What Dagster calls resources, for each environment: Spark, the lake, the broker, who is told.

Belongs here: the choice by environment. Does not belong here: how a thing works (``embedded``, ``lake``, ``kafka``).
"""

"""Iceberg: the catalog, snapshots, branches and tags, Spark's and DuckDB's ways to the rows, what went wrong in one line.

Belongs here: what is done with any table. Does not belong here: what a layer does with its tables (``engine``, ``upkeep``), where
the lake of this machine lies (``embedded``).
"""

from wikistream_assets.machine.variables import adopt_for_libraries

adopt_for_libraries()  # PyIceberg reads its settings when it is imported, in whatever process that is

"""WikiStream: the public Wikimedia edit stream as audited Iceberg tables, on Dagster.

Three rings, dependencies point inwards only: wiring (``defs``, ``definitions``, ``cli``) -> environment (``resources``,
``jobs``, ``embedded``) -> pure (``tables``, ``transforms``, ``quality``).
"""

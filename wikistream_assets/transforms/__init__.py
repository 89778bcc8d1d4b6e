"""How each table is computed: DataFrame in, DataFrame out. No Dagster, no clocks, no paths, no environment."""

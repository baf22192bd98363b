"""What makes the tables: DuckDB, Spark, Athena."""

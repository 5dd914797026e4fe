"""Pipeline definitions, compiled to recipes: kept beside the log, and replaced when a reference table changes."""

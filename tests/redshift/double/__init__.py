"""A stand-in for Amazon Redshift behind its Data API: PostgreSQL 15 in a temporary directory, COPY from an emulated S3.

What it is not: Redshift. The planner, the storage, distribution, WLM, concurrency scaling, IAM, VPC, encryption, cursor limits and
the speed are PostgreSQL's or absent. Isolation is PostgreSQL's REPEATABLE READ for SNAPSHOT and its SERIALIZABLE for SERIALIZABLE,
which fails other transactions than Redshift would. The
list of refused statements is what this project once had reason to look at, not all of the dialect. COPY reads Parquet by a manifest
and nothing else. Every report says: semantics of Redshift emulated on PostgreSQL, not run against Redshift.
"""

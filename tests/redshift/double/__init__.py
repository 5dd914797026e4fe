"""A stand-in for Amazon Redshift behind its Data API: PostgreSQL 15 in a temporary directory, COPY from an emulated S3.

What it is not: Redshift. The planner, the storage, distribution, WLM, concurrency scaling, IAM, VPC, encryption, cursor limits and
the speed are PostgreSQL's or absent. Isolation is PostgreSQL's REPEATABLE READ for SNAPSHOT and its SERIALIZABLE for SERIALIZABLE,
which fails other transactions than Redshift would. It refuses the statements that this project had reason to look at, not everything
that Redshift refuses. COPY reads Parquet by a manifest and nothing else. campaign_contract.py runs the behaviours on it that
tests/contract/test_warehouse.py requires of the fake in memory. Every report says: semantics of Redshift emulated on PostgreSQL, not
run against Redshift.
"""

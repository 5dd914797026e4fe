"""Processes other than `stream run` that run a pipeline: Lambda functions, and children of the KCL's MultiLangDaemon."""

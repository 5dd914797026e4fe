"""Translates definitions of AWS Data Pipeline to pipeline files, in four steps: parse, resolve, translate, report.

Pure: text in, text out.
"""

"""What replaces a definition of AWS Data Pipeline: parse, resolve, translate, report. Pure: text in, texts out."""

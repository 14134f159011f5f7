"""Keeps what is written from something else: values tables in READMEs, schemas of values."""

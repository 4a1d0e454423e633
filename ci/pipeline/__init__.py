"""The language: text in, JobSpecs out. Pure: no I/O, no clock, no database."""

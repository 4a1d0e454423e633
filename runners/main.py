"""`shipway runner`."""

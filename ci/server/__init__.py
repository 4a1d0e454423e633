"""Everything with state. No HTTP serving, no HTML, no Docker."""

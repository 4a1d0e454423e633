"""The one door to the database: plain functions over one connection."""

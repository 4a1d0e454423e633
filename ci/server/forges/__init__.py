"""Where repos live: one file a forge; forges do not know one another."""

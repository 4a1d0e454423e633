"""What the languages of other servers are translated with."""

"""Everything that speaks HTTP: hooks, JSON API, sockets, pages, git."""

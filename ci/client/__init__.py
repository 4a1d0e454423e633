"""The commands that speak to a server from anywhere: its JSON API, on a terminal."""

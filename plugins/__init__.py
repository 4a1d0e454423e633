"""The built-in deploy plugins, each a module that runs alone inside a container."""

"""Ways of running commands, each in a process of its own that is asked by lines of JSON."""
